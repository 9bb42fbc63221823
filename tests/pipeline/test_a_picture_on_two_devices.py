"""One picture's guidance pair on two devices is the picture of one device, whatever is attached; here both are the CPU.

Graphs are what they are on a GPU, with no GPU: see tests/helpers/baked_graphs.py.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from PIL.Image import Image

from tests.helpers.asking import ask
from tests.helpers.baked_graphs import BakedDevice, graphs_of
from tests.helpers.drawing import SMALL, decibels
from tests.helpers.every_kind import JOBS
from tests.helpers.known_compiler import KnownCompiler
from tests.helpers.tiny_addons import Kits, denoiser
from worker.engine.adapters import loras
from worker.engine.adapters.lora_file import adapter_name
from worker.engine.batch_size import BatchSize
from worker.engine.denoiser import graphs
from worker.engine.drawing import Drawing
from worker.engine.engine import Engine
from worker.engine.generate import draw_jobs
from worker.engine.load.loader import load_all
from worker.plan import make_plan
from worker.request import GeneratedImage
from worker.settings import read_settings

SAME_DB = 50.0  # what a batch promises
PAIR = [torch.device("cpu")] * 2


@pytest.fixture(scope="module")
def pairs(kits: Kits) -> dict[str, list[Engine]]:
    """Two engines of each family, with all there is beside them."""
    found = {}
    for family in ("sd1", "sdxl"):
        with mock.patch.dict(os.environ, kits[family].settings("loras", "controlnets", "ip_adapter")):
            found[family] = load_all(read_settings(), PAIR)
    return found


@pytest.fixture
def graphed(pairs: dict[str, list[Engine]]) -> Iterator[Any]:
    """Engines of a family by graphs; passes on two devices are said to be twice as fast."""
    with ExitStack() as stack:

        def enter(family: str, *split_ms: float, compiler: KnownCompiler | None = None) -> list[Engine]:
            each = zip(pairs[family], _devices(split_ms or (0.5,)), strict=True)
            all_graphs = [stack.enter_context(graphs_of(one, device, compiler=compiler)) for one, device in each]
            return [replace(one, graphs=graphs) for one, graphs in zip(pairs[family], all_graphs, strict=True)]

        yield enter


class _Timed(BakedDevice):
    """Says that what is on two devices takes so long, the last one for ever, and all else a millisecond."""

    def __init__(self, helper: BakedDevice, split_ms: Sequence[float]) -> None:
        super().__init__()
        self.helper, self.split_ms = helper, list(split_ms)

    def clock(self, action: Any) -> tuple[Any, float]:
        before = self.helper.replays
        result = action()
        if self.helper.replays == before:
            return result, 1.0
        return result, self.split_ms.pop(0) if len(self.split_ms) > 1 else self.split_ms[0]


def _devices(split_ms: Sequence[float]) -> list[BakedDevice]:
    helper = BakedDevice()
    return [_Timed(helper, split_ms), helper]


def _draw(engine: Engine, helper: Engine | None, **fields: Any) -> list[Image]:
    pictures: list[GeneratedImage] = []
    plan = make_plan(ask(engine.capabilities, **{**SMALL, "num_inference_steps": 6, **fields}))
    drawing = Drawing(plan, lambda *_: None, pictures.append)
    (outcome,) = draw_jobs(engine, [drawing], lambda error: error, helper)
    if outcome.error is not None:
        raise outcome.error
    return [one.image for one in pictures]


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_every_kind_of_job(family: str, graphed: Any) -> None:
    engine, helper = graphed(family)
    for job in JOBS:
        alone, together = (_draw(engine, other, **job) for other in (None, helper))
        for one, other in zip(alone, together, strict=True):
            assert one.getextrema() == other.getextrema() or decibels(one, other) > SAME_DB, job
    assert helper.graphs.device.replays > 0


def test_each_does_half(graphed: Any) -> None:
    engine, helper = graphed("sd1")
    _draw(engine, helper)
    before = helper.graphs.device.replays
    _draw(engine, helper)
    assert helper.graphs.device.replays == before + 6, "one for each step"


def test_pairs_of_several_pictures_are_halved(graphed: Any) -> None:
    engine, helper = graphed("sd1")
    engine = replace(engine, batch_size=BatchSize(2, 0, 0))
    job = {"num_images": 2, "width": 80}
    alone = _draw(engine, None, **job)
    before = helper.graphs.device.replays
    for _ in range(2):
        for one, other in zip(_draw(engine, helper, **job), alone, strict=True):
            assert decibels(one, other) > SAME_DB
    assert helper.graphs.device.replays >= before + 6, "one for each step of both"


def test_adapters_that_were_loaded_again_on_the_helper_are_captured_again(graphed: Any) -> None:
    """They may be where the others were, and each in another's place."""
    engine, helper = graphed("sd1")
    jobs: list[dict[str, Any]] = [{}, next(job for job in JOBS if "loras" in job)]
    for job in jobs * 2:
        _draw(engine, helper, **job)
    captures = helper.graphs.device.captures
    helper.runners[0].change_adapters()
    for job in jobs * 2:
        _draw(engine, helper, **job)
    assert helper.graphs.device.captures == captures + 1


def test_what_is_no_pair_is_done_by_one(graphed: Any) -> None:
    engine, helper = graphed("sd1")
    for _ in range(2):
        _draw(engine, helper, guidance_scale=1.0)
    assert helper.graphs.device.replays == 0


def test_two_devices_are_not_used_where_one_is_faster(graphed: Any) -> None:
    engine, helper = graphed("sd1", 1.5)
    _draw(engine, helper)
    tried = helper.graphs.device.replays
    _draw(engine, helper)
    assert helper.graphs.device.replays == tried


def test_what_cannot_be_captured_there_is_drawn_here(graphed: Any) -> None:
    engine, helper = graphed("sd1")
    helper.graphs.device.fail = RuntimeError("operation not permitted when stream is capturing")
    alone, together = (_draw(engine, other, width=72) for other in (None, helper))
    assert decibels(alone[0], together[0]) == float("inf")


def test_a_helper_without_memory_for_what_a_job_adds_does_not_help(
    graphed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, helper = graphed("sd1")
    job = next(job for job in JOBS if "loras" in job)
    for name in list(helper.loras._loaded):
        helper.loras._discard(adapter_name(name))
        del helper.loras._loaded[name]
    alone = _draw(engine, None, **job)
    with monkeypatch.context() as patch:
        patch.setattr(loras, "add_adapter", _run_out)
        assert decibels(_draw(engine, helper, **job)[0], alone[0]) > SAME_DB
        assert helper.graphs.device.replays == 0
    _draw(engine, helper, **job)
    assert helper.graphs.device.replays > 0, "there is memory again"


def _run_out(*_: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_weights_that_have_moved_on_the_helper_are_captured_again(graphed: Any) -> None:
    engine, helper = graphed("sd1")
    before = _draw(engine, helper)[0]
    for weight in denoiser(helper.pipeline).parameters():
        weight.data = weight.data.clone()
    assert decibels(_draw(engine, helper)[0], before) > SAME_DB


@pytest.mark.parametrize("job", [{}, {"lora": "plain"}])
def test_the_helpers_weights_are_looked_through_once_a_drawing(
    job: dict[str, Any], graphed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, helper = graphed("sd1")
    _draw(engine, helper, **job)
    looked: list[Any] = []
    look = graphs.Graphs._find_addresses
    monkeypatch.setattr(graphs.Graphs, "_find_addresses", lambda *given: looked.append(given[1]) or look(*given))
    before = helper.graphs.device.replays
    _draw(engine, helper, **job)
    assert helper.graphs.device.replays == before + 6
    assert looked.count(denoiser(helper.pipeline)) == 1


def test_what_acts_on_one_alone_is_not_shared(graphed: Any) -> None:
    engine, helper = graphed("sd1")
    before = _draw(engine, helper)[0]
    helper.runners[0].attach("LoRA", "somebody else's")
    try:
        tried = helper.graphs.device.replays
        assert decibels(_draw(engine, helper)[0], before) > SAME_DB
        assert helper.graphs.device.replays == tried
    finally:
        helper.runners[0].attach("LoRA")


OFTEN = {"num_inference_steps": 18}  # of a job whose passes are worth compiling


def test_what_each_does_is_compiled(graphed: Any) -> None:
    compiler = KnownCompiler(lambda result: result * 1.001)
    engine, helper = graphed("sd1", 0.5, 0.25, compiler=compiler)
    whole = _draw(engine, None, **OFTEN)[0]
    found, modes = [], []
    for job in ({}, {}, {"lora": "plain"}, {}):
        found.append(_draw(engine, helper, **{**OFTEN, **job})[0])
        modes.append(engine.graphs.mode)
    assert modes == ["graphs", "compile", "graphs", "compile"], "with a LoRA, as written"
    works = [one.module for one in compiler.works if one.name == "denoiser"]
    assert sorted(map(id, works)) == sorted(id(denoiser(one.pipeline)) for one in (engine, engine, helper))
    assert decibels(found[0], whole) > SAME_DB and 40 < decibels(found[1], whole) < float("inf")


@pytest.mark.parametrize(
    ("changes", "compiled_ms"),
    [
        pytest.param(None, 0.25, id="fails"),
        pytest.param(lambda result: result * 1.5, 0.25, id="differs"),
        pytest.param(lambda result: result, 0.49, id="is-not-faster"),
    ],
)
def test_what_each_does_compiled_must_be_right_and_faster(
    changes: Callable[[torch.Tensor], torch.Tensor] | None, compiled_ms: float, graphed: Any
) -> None:
    compiler = KnownCompiler(changes)
    engine, helper = graphed("sd1", 0.5, compiled_ms, compiler=compiler)
    before = _draw(engine, None, **OFTEN)[0]
    for _ in range(3):
        assert decibels(_draw(engine, helper, **OFTEN)[0], before) > SAME_DB
        assert engine.graphs.mode == "graphs"
    assert len([one for one in compiler.works if one.name == "denoiser"]) == 3, "each is compiled once"


def test_what_was_compiled_for_each_is_used_again_after_the_graphs_were_set_aside(graphed: Any) -> None:
    compiler = KnownCompiler(lambda result: result)
    engine, helper = graphed("sd1", 0.5, 0.25, 0.5, 0.25, compiler=compiler)
    for _ in range(2):
        _draw(engine, helper, **OFTEN)
    with engine.without_graphs():
        _draw(engine, helper, **OFTEN)
    modes = []
    for _ in range(2):
        _draw(engine, helper, **OFTEN)
        modes.append(engine.graphs.mode)
    assert modes == ["graphs", "compile"]
    assert len([one for one in compiler.works if one.name == "denoiser"]) == 3


def test_where_two_devices_are_slower_than_one_nothing_is_compiled_for_them(graphed: Any) -> None:
    compiler = KnownCompiler(lambda result: result)
    engine, helper = graphed("sd1", 1.5, compiler=compiler)
    for _ in range(2):
        _draw(engine, helper, **OFTEN)
    assert len([one for one in compiler.works if one.name == "denoiser"]) == 1


def test_what_was_compiled_is_not_compared_with_weights_that_have_moved(graphed: Any) -> None:
    compiler = KnownCompiler(lambda result: result)
    engine, helper = graphed("sd1", 0.5, 0.5, 0.25, compiler=compiler)
    before = _draw(engine, helper, **OFTEN)[0]
    for weight in denoiser(helper.pipeline).parameters():
        weight.data = weight.data.clone()
    helper.runners[0].invalidate()
    modes = []
    for _ in range(2):
        assert decibels(_draw(engine, helper, **OFTEN)[0], before) > SAME_DB
        modes.append(engine.graphs.mode)
    assert modes == ["graphs", "compile"]
