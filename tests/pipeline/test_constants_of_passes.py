"""A second pass brings nothing from the CPU, for then it could not become a graph; and it gives what it gave."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.helpers.baked_graphs import BakedDevice
from tests.pipeline.test_families_of_today import CASES
from worker.engine.denoiser.cuda_graphs import Work
from worker.engine.denoiser.graphs import Graphs
from worker.engine.load.constants import keep_constants
from worker.engine.pipelines import find_denoiser

META = torch.device("meta")  # here it stands for a GPU


class Passes:
    """A denoiser, and what it is given in the first step of a job."""

    def __init__(self, family: str) -> None:
        pipeline = CASES[family].make()
        pipeline.set_progress_bar_config(disable=True)
        self.denoiser: Any = find_denoiser(pipeline)
        self.inputs: list[Any] = []
        hook = self.denoiser.register_forward_pre_hook(lambda _, *given: self.inputs.append(given), with_kwargs=True)
        pipeline(prompt="a star", width=64, height=96, num_inference_steps=1)
        hook.remove()

    def move(self, device: torch.device) -> None:
        """All of it to this device."""
        self.denoiser.to(device)
        self.inputs = tree_map(lambda one: one.to(device) if isinstance(one, Tensor) else one, self.inputs)

    @torch.no_grad()
    def run(self) -> Any:
        """The pass."""
        given, named = self.inputs[0]
        return self.denoiser(*given, **named)


class Brought(TorchDispatchMode):
    """Counts the operations that make of what is on the CPU something that is not."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        before, after = (
            {one.device for one in tree_leaves(tree) if isinstance(one, Tensor)} for tree in ((args, kwargs), result)
        )
        self.count += torch.device("cpu") in before and META in after
        return result


@pytest.mark.parametrize("family", ["chroma", "kandinsky-5"])
def test_what_a_pass_needs_is_where_it_is_computed(family: str) -> None:
    passes = Passes(family)
    expected = tree_leaves(passes.run())
    keep_constants(passes.denoiser, torch.device("cpu"))
    for _ in range(2):
        assert all(torch.equal(*pair) for pair in zip(tree_leaves(passes.run()), expected, strict=True))

    passes = Passes(family)
    passes.move(META)
    passes.run()
    with Brought() as seen:
        passes.run()
    assert seen.count > 0, "else there is nothing to keep"
    keep_constants(passes.denoiser, META)
    passes.run()
    with Brought() as seen:
        passes.run()
    assert seen.count == 0


def test_a_pass_that_gives_more_than_tensors_becomes_a_graph() -> None:
    passes = Passes("kandinsky-5")
    given, named = passes.inputs[0]
    work, graphs = Work("denoiser", passes.denoiser, passes.denoiser.forward), Graphs(BakedDevice(), measure=False)
    with graphs.drawing():
        expected, *_, found = [graphs.run(work, None, *given, **named) for _ in range(3)]
    assert graphs.mode == "graphs"
    assert type(found) is type(expected)
    assert torch.equal(found.sample, expected.sample)


def test_of_chroma_they_are_those_of_the_rows_that_are_drawn() -> None:
    embedder = CASES["chroma"].make().transformer.time_text_embed
    rows = [torch.tensor([0] * count) for count in (1, 3, 1, 2)] + [torch.tensor([0, 1])]
    expected = [embedder.guidance_proj(one) for one in rows]
    keep_constants(embedder, torch.device("cpu"))
    assert all(torch.equal(embedder.guidance_proj(one), known) for one, known in zip(rows, expected, strict=True))
