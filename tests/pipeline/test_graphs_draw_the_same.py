"""What is drawn by graphs is, to the bit, what is drawn by the passes as they are written, whatever came between.

A graph knows constants and addresses of its time. Here graphs are what they are on a GPU, with no GPU: copies of the
module's own settings, around weights where they were. tests/gpu asks the same of CUDA.
"""

import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.baked_graphs import BakedDevice, graphs_of
from tests.helpers.drawing import SMALL, draw, load_engine
from tests.helpers.every_kind import EDGES, IMAGE, JOBS, drawn, equipped
from tests.helpers.faults import last_layer, raising
from tests.helpers.tiny_addons import Kits, denoiser
from worker.engine.denoiser import graphs as module
from worker.engine.denoiser.cuda_graphs import Work
from worker.engine.denoiser.graphs import Graphs
from worker.engine.engine import Engine

FAMILIES = ("sd1", "sdxl", "sd3", "flux")


@pytest.fixture(scope="module")
def engines(kits: Kits) -> dict[str, Engine]:
    return {family: equipped(kits, family) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_job_in_any_order(family: str, engines: dict[str, Engine]) -> None:
    engine, device = engines[family], BakedDevice()
    expected = [drawn(engine, **job) for job in JOBS]
    with graphs_of(engine, device):
        for _ in range(2):
            for job, pictures in zip(JOBS, expected, strict=True):
                found = drawn(engine, **job)
                for one, other in zip(found, pictures, strict=True):
                    assert np.array_equal(one, other), job
    assert device.replays > 2 * device.captures > 0


def test_scales_that_change(engines: dict[str, Engine]) -> None:
    engine = engines["sd1"]
    jobs: list[dict[str, Any]] = [{"loras": [{"name": "plain", "scale": scale}]} for scale in (0.5, 1.0, 0.5, -1.0)]
    jobs += [{"controlnet": {**EDGES, "scale": scale}} for scale in (0.3, 0.9)]
    jobs += [{"guidance_scale": scale} for scale in (1.0, 3.0, 9.0)]
    expected = [drawn(engine, **job)[0] for job in jobs]
    with graphs_of(engine, BakedDevice()):
        for _ in range(2):
            assert all(np.array_equal(drawn(engine, **job)[0], one) for job, one in zip(jobs, expected, strict=True))


def test_a_lora_that_goes_and_comes_back(kits: Kits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.adapters.loras.MAX_LORAS", 1)
    engine = load_engine(**kits["sd1"].settings("loras"))
    jobs = [{"lora": "plain"}, {"lora": "wordy"}, {}] * 2
    expected = [drawn(engine, **job)[0] for job in jobs]
    with graphs_of(engine, BakedDevice()):
        assert all(np.array_equal(drawn(engine, **job)[0], one) for job, one in zip(jobs, expected, strict=True))


def test_weights_that_have_moved(kits: Kits) -> None:
    engine, device = load_engine(**kits["sd1"].settings()), BakedDevice()
    with graphs_of(engine, device):
        drawn(engine)
        weight = denoiser(engine.pipeline).conv_out.weight
        kept, weight.data = weight.data, weight.data * 2  # elsewhere, and another
        moved = drawn(engine)[0]
        weight.data = kept
        back = drawn(engine)[0]
    assert not np.array_equal(moved, back), "else this proves nothing"
    assert np.array_equal(drawn(engine)[0], back)


def test_a_vae_that_the_pipeline_casts_for_each_picture_that_it_encodes(kits: Kits) -> None:
    engine = load_engine(**kits["sdxl"].settings(), DTYPE="bfloat16")
    jobs: list[dict[str, Any]] = [{}, {}, {}, {"image": IMAGE, "strength": 0.6}, {}] * 2
    expected = [drawn(engine, **job)[0] for job in jobs]
    with graphs_of(engine, BakedDevice()):
        assert all(np.array_equal(drawn(engine, **job)[0], one) for job, one in zip(jobs, expected, strict=True))


def test_a_repair_of_what_is_whole_forgets_nothing(engines: dict[str, Engine]) -> None:
    engine, device = engines["sd1"], BakedDevice()
    with graphs_of(engine, device):
        draw(engine)
        before = device.captures
        engine.repair()
        draw(engine)
    assert device.captures == before > 0


def test_where_memory_runs_out_theirs_is_there_for_the_second_try(engines: dict[str, Engine]) -> None:
    plain, device = engines["sd1"], BakedDevice()
    expected, kept = drawn(plain)[0], []
    with graphs_of(plain, device) as graphs:
        engine = replace(plain, graphs=graphs)
        drawn(engine)
        layer = last_layer(engine, "text encoder")
        with raising(layer, lambda: torch.OutOfMemoryError("CUDA out of memory")):
            handle = layer.register_forward_hook(lambda *_: kept.append(count_graphs(graphs)))
            spared = drawn(engine)[0]
            handle.remove()
        assert kept == [0] * len(kept) != []
        assert np.array_equal(spared, expected) and np.array_equal(drawn(engine)[0], expected)
        assert count_graphs(graphs) > 0, "they come again"


def count_graphs(graphs: Graphs) -> int:
    return sum(kind.graph is not None for kind in graphs._kinds.values())


def test_a_graph_that_cannot_be_had_is_done_without(engines: dict[str, Engine]) -> None:
    engine, device = engines["sd1"], BakedDevice()
    expected = drawn(engine)[0]
    device.fail = RuntimeError("operation not permitted when stream is capturing")
    with graphs_of(engine, device):
        assert all(np.array_equal(drawn(engine)[0], expected) for _ in range(2))
    assert device.captures == 1, "it is not tried again"


@pytest.mark.parametrize(("replay_ms", "kept"), [(0.5, True), (0.99, False), (2.0, False)])
def test_a_graph_that_is_not_faster_is_not_kept(replay_ms: float, kept: bool, engines: dict[str, Engine]) -> None:
    engine, device = engines["sd1"], BakedDevice([1.0, replay_ms])
    with graphs_of(engine, device, measure=True):
        draw(engine, num_inference_steps=6)
    assert (device.replays > 2) is kept


def test_there_are_no_more_than_it_should_keep(engines: dict[str, Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GRAPHS", 2)
    engine, device = engines["sd1"], BakedDevice()
    with graphs_of(engine, device) as graphs:
        for width in (64, 72, 80, 64):
            draw(engine, **{**SMALL, "width": width})
        kept = count_graphs(graphs)
    assert kept == 2 and device.captures == 4


def test_addresses_are_those_of_all_weights_and_buffers(engines: dict[str, Engine]) -> None:
    shared = torch.nn.BatchNorm1d(3)  # of which three are buffers
    odd = torch.nn.ModuleDict({"one": shared, "same": torch.nn.Sequential(shared, torch.nn.Linear(3, 3, bias=False))})
    odd.register_module("none", None)
    odd.register_buffer("kept", torch.zeros(2), persistent=False)
    odd.register_parameter("absent", None)
    for whole in (odd, *(denoiser(engines[family].pipeline) for family in FAMILIES)):
        expected = {weight.data_ptr() for weight in (*whole.parameters(), *whole.buffers())}
        assert module._addresses(module._list_layers(whole)) == expected
        assert len(expected) > 5


def test_weights_that_are_replaced_or_come_with_layers_are_seen(engines: dict[str, Engine]) -> None:
    with graphs_of(engines["sd1"], BakedDevice()) as graphs:
        layer = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        before = graphs._find_addresses(layer, 0)
        first, second = layer
        first.weight = torch.nn.Parameter(first.weight.clone())
        second.bias.data = second.bias.data.clone()
        after = graphs._find_addresses(layer, 0)
        assert len(before) == len(after) == 4 and len(before & after) == 2
        layer.append(torch.nn.Linear(3, 3))
        assert len(graphs._find_addresses(layer, 1)) == 6


def test_weights_that_are_taken_off_are_let_go(engines: dict[str, Engine]) -> None:
    """Or a LoRA that has to make room for another would not."""
    with graphs_of(engines["sd1"], BakedDevice()) as graphs:
        layer = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        weight = weakref.ref(layer[1].weight)
        graphs.check(layer, 0)
        del layer[1]
        assert weight() is None
        assert len(graphs._find_addresses(layer, 0)) == 2


def test_what_a_layer_keeps_from_its_first_passes_is_known() -> None:
    class Late(torch.nn.Module):
        def forward(self, number: Tensor) -> Tensor:
            if not hasattr(self, "kept"):
                self.register_buffer("kept", torch.ones(2))
            return number * self.kept

    layer, device = Late(), BakedDevice()
    graphs, work = Graphs(device, measure=False), Work("late", layer, layer.forward)
    for captures in (1, 2):
        for _ in range(6):
            with graphs.drawing():
                graphs.check(layer, 0)
                graphs.run(work, (), torch.ones(2))
        assert device.captures == captures
        layer.kept = layer.kept.clone()  # a graph that read the one before would read what is another's by now


def test_modules_in_many_places_are_looked_at_once() -> None:
    layer: torch.nn.Module = torch.nn.Linear(2, 2)
    for _ in range(200):
        layer = torch.nn.ModuleList([layer, layer])
    assert len(module._addresses(module._list_layers(layer))) == 2
