"""What a model's constants are kept for: its passes become graphs, and give what they gave."""

import pytest
import torch

from tests.helpers import tiny_viewers
from tests.helpers.baked_graphs import BakedDevice
from tests.pipeline.test_families_of_today import CASES
from worker.engine.denoiser.cuda_graphs import Work
from worker.engine.denoiser.graphs import Graphs
from worker.engine.load import constants
from worker.engine.load.constants import keep_constants
from worker.engine.pipelines import find_denoiser


def test_a_pass_that_gives_more_than_tensors_becomes_a_graph() -> None:
    pipeline = CASES["kandinsky-5"].make()
    pipeline.set_progress_bar_config(disable=True)
    denoiser, inputs = find_denoiser(pipeline), []
    denoiser.register_forward_pre_hook(lambda _, *given: inputs.append(given), with_kwargs=True)
    pipeline(prompt="a star", width=64, height=96, num_inference_steps=1)
    given, named = inputs[0]
    work, graphs = Work("denoiser", denoiser, denoiser.forward), Graphs(BakedDevice(), measure=False)
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


def test_of_joyimage_they_are_those_of_the_sizes_that_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more of them than there is room for; those that go are no longer where a graph would look for them."""
    monkeypatch.setattr(constants, "MAX_TABLES", 2)
    transformer = tiny_viewers.joyimage_edit().transformer
    sizes = [[1, rows, 4] for rows in (2, 3, 2, 4, 3)]
    expected = [transformer.get_rotary_pos_embed(vis_rope_size=size)[0] for size in sizes]
    keep_constants(transformer, torch.device("cpu"))
    addresses = []
    for size, known in zip(sizes, expected, strict=True):
        found, text = transformer.get_rotary_pos_embed(vis_rope_size=size)
        assert text is None and all(torch.equal(*pair) for pair in zip(found, known, strict=True))
        held = {one.data_ptr() for one in transformer.buffers()}
        assert {one.data_ptr() for one in found} <= held
        addresses.append(found[0].data_ptr())
        assert len(held) <= 2 * 2
    assert addresses[0] == addresses[2]
    assert addresses[0] not in {one.data_ptr() for one in transformer.buffers()}
    assert not [name for name in transformer.state_dict() if "rotary" in name]
