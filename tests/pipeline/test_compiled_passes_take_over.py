"""What is compiled beside the serving draws from the next job on, if it is right and faster; it stands still meanwhile.

Nothing is compiled here as a GPU would have it, where tests/gpu asks the same: the compiler is torch's own, without its
last stage, or one whose results are known to be good or bad.
"""

import copy
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from torch._dynamo import eval_frame
from torch.overrides import TorchFunctionMode

from tests.helpers import tiny_models, tiny_transformers
from tests.helpers.baked_graphs import BakedDevice
from tests.helpers.drawing import draw, load_engine
from tests.helpers.every_kind import drawn
from tests.helpers.known_compiler import KnownCompiler
from tests.helpers.tiny_addons import Kits, denoiser
from worker.engine.denoiser.compiled import Floor, TorchCompiler
from worker.engine.denoiser.cuda_graphs import Arguments, Work
from worker.engine.denoiser.graphs import Graphs
from worker.engine.engine import Engine
from worker.engine.load.acceleration import lay_out
from worker.engine.warm_up import warm_up

STEPS = 18  # of a job whose passes are worth compiling
WAIT_S = 120.0


@pytest.fixture
def accelerated(sd1: Engine) -> Iterator[Callable[..., Engine]]:
    """The engine with a compiler."""

    def accelerate(compiler: Any, milliseconds: list[float] | None = None) -> Engine:
        graphs = Graphs(BakedDevice(milliseconds or [1.0]), measure=False, compiler=compiler)
        for runner in sd1.runners:
            runner.graphs = graphs
        return replace(sd1, graphs=graphs)

    yield accelerate
    for runner in sd1.runners:
        runner.graphs = None


def modes(engine: Engine, jobs: int = 2, **job: Any) -> list[str]:
    """How the passes of so many jobs were done."""
    assert engine.graphs is not None
    found = []
    for _ in range(jobs):
        draw(engine, num_inference_steps=STEPS, **job)
        found.append(engine.graphs.mode)
    return found


def test_from_the_next_job_on(accelerated: Any) -> None:
    compiler = KnownCompiler(lambda result: result * 1.001)
    engine = accelerated(compiler, [1.0, 1.0, 0.5])
    plain = drawn(engine, num_inference_steps=STEPS)[0]
    assert engine.graphs.mode == "graphs" and [one.name for one in compiler.works] == ["denoiser"]
    compiled = drawn(engine, num_inference_steps=STEPS)[0]
    assert engine.graphs.mode == "compile"
    assert 0 < np.abs(compiled - plain).max() < 10, "else it is not what was compiled, or not nearly the same"


@pytest.mark.parametrize(
    ("changes", "milliseconds"),
    [
        pytest.param(None, [1.0], id="fails"),
        pytest.param(lambda result: result * 1.5, [1.0, 1.0, 0.5], id="differs"),
        pytest.param(lambda result: result * float("nan"), [1.0, 1.0, 0.5], id="is-no-number"),
        pytest.param(lambda result: result, [1.0, 1.0, 2.0], id="is-slower"),
    ],
)
def test_what_is_not_worth_it_is_tried_once(changes: Any, milliseconds: list[float], accelerated: Any) -> None:
    compiler = KnownCompiler(changes)
    engine = accelerated(compiler, milliseconds)
    assert modes(engine, jobs=3) == ["graphs"] * 3
    assert len([one for one in compiler.works if one.name == "denoiser"]) == 1


def test_with_an_adapter_passes_are_as_written_and_without_compiled_again(accelerated: Any) -> None:
    engine = accelerated(KnownCompiler(lambda result: result), [1.0, 1.0, 0.5])
    modes(engine)
    runner = engine.runners[0]
    runner.attach("LoRA", "some")
    assert modes(engine, jobs=1) == ["graphs"]
    runner.attach("LoRA")
    runner.change_adapters()
    assert modes(engine, jobs=1) == ["compile"], "a compile takes minutes; an adapter leaves the weights where they are"


@pytest.mark.parametrize(
    ("family", "comes"), [("sd1", "while it compiles"), ("sd1", "afterwards"), ("flux", "while it compiles")]
)
def test_the_first_lora_leaves_what_is_compiled_in_use(family: str, comes: str, kits: Kits) -> None:
    begun, go_on, calls = threading.Event(), threading.Event(), 0

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        begun.set()
        assert go_on.wait(WAIT_S)

        def run(*given: Any) -> Any:
            nonlocal calls
            calls += 1
            return graph.forward(*given)

        return run

    def draw_bare() -> int:
        """How often compiled code is called for a job without LoRAs."""
        before = calls
        drawn(engine, num_inference_steps=STEPS)
        return calls - before

    compiler, loaded = TorchCompiler(None, backend=backend), load_engine(**kits[family].settings("loras"))
    graphs = Graphs(BakedDevice([1.0, 1.0, 0.5]), measure=False, compiler=compiler)  # as written, by a graph, compiled
    lay_out(graphs, [denoiser(loaded.pipeline)])
    engine = replace(loaded, graphs=graphs)
    engine.runners[0].graphs = graphs
    try:
        draw_bare()
        assert begun.wait(WAIT_S)
        if comes == "while it compiles":
            with ThreadPoolExecutor(1) as thread:
                job = thread.submit(draw, engine, lora="plain")
                go_on.set()
                job.result(WAIT_S)
        go_on.set()
        graphs.wait()
        first = draw_bare()
        draw(engine, lora="plain")
        second = draw_bare()
        assert graphs.mode == "compile"
        assert first >= second > 0
    finally:
        compiler.close()


def test_graphs_that_were_set_aside_come_again_with_what_was_compiled(accelerated: Any) -> None:
    compiler = KnownCompiler(lambda result: result)
    engine = accelerated(compiler, [1.0, 1.0, 0.5, 1.0] * 2)  # the decoder's second pass is clocked, too
    assert modes(engine) == ["graphs", "compile"]
    with engine.without_graphs():
        assert modes(engine) == ["off", "off"]
    assert modes(engine) == ["graphs", "compile"]
    assert len([one for one in compiler.works if one.name == "denoiser"]) == 1, "compiled once"


def test_weights_that_have_moved_are_not_drawn_with(accelerated: Any) -> None:
    engine = accelerated(KnownCompiler(lambda result: result), [1.0, 1.0, 0.5])
    modes(engine)
    weight = denoiser(engine.pipeline).conv_out.weight
    kept, weight.data = weight.data, weight.data.clone()
    try:
        assert modes(engine, jobs=1) == ["graphs"]
    finally:
        weight.data = kept


def test_torch_compiles_what_is_drawn_often_before_the_first_job(accelerated: Any, sd1: Engine) -> None:
    compiler = TorchCompiler(None, backend="eager")
    engine = accelerated(compiler, [1.0, 1.0, 1.0, 1.0, 0.5])
    try:
        warm_up(engine)
        model = engine.capabilities
        found = drawn(engine, num_inference_steps=4, width=model.width, height=model.height)[0]
        assert engine.graphs.mode == "compile"
        assert np.array_equal(found, drawn(sd1, num_inference_steps=4, width=model.width, height=model.height)[0])
    finally:
        compiler.close()


@pytest.mark.parametrize("make", [tiny_models.sdxl, tiny_transformers.flux, tiny_transformers.qwen])
def test_any_model_is_laid_out_for_compiled_passes(make: Callable[[], Any]) -> None:
    pipeline = make()
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    lay_out(Graphs(BakedDevice(), measure=False, compiler=KnownCompiler(None)), parts)
    layers = [layer for part in parts for layer in part.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert layers and all(one.weight.is_contiguous(memory_format=torch.channels_last) for one in layers)


class _Products(TorchFunctionMode):
    """Counts the products of layers that are computed inside the `with`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        self.count += function is torch.nn.functional.linear
        return function(*given, **(named or {}))


@pytest.mark.parametrize("make", [tiny_models.sd1, tiny_models.sdxl])
def test_queries_keys_and_values_come_from_one_product_of_the_same_weights(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    unet = make().unet
    blocks = [layer for layer in unet.modules() if isinstance(layer, BasicTransformerBlock)]
    given = _unet_arguments(unet)
    weights, memory = copy.deepcopy(unet.state_dict()), _memory(unet)

    def run() -> tuple[torch.Tensor, int]:
        """What a compiled pass gives, and how many products it has."""
        compiler = TorchCompiler(None)
        forward = compiler._prepare_forward(Work("denoiser", unet, unet.forward))
        compiler.close()
        with torch.no_grad(), _Products() as products:
            return forward(*given.given, **given.named)[0], products.count

    expected, plain = run()
    lay_out(Graphs(BakedDevice(), measure=False, compiler=KnownCompiler(None)), [unet])
    found, laid_out = run()

    assert laid_out == plain - 3 * len(blocks), "two less of what is drawn, one less of what is read, in each block"
    assert torch.allclose(found, expected, atol=1e-5)
    assert all(torch.equal(weight, weights[name]) for name, weight in unet.state_dict().items())
    assert _memory(unet) == memory

    weight = blocks[0].attn1.to_k.weight
    weight.data = weight.data.clone()  # as a repair moves some
    found, moved = run()
    assert moved == laid_out + 2 and torch.allclose(found, expected, atol=1e-5)


def _unet_arguments(unet: Any) -> Arguments:
    read = unet.config.cross_attention_dim
    given = (torch.randn(2, 4, 16, 16), torch.tensor(5.0), torch.randn(2, 7, read))
    named: dict[str, Any] = {"return_dict": False}
    if unet.config.addition_embed_type == "text_time":
        sizes = 6 * unet.config.addition_time_embed_dim
        texts = torch.randn(2, unet.config.projection_class_embeddings_input_dim - sizes)
        named["added_cond_kwargs"] = {"text_embeds": texts, "time_ids": torch.randn(2, 6)}
    return Arguments(given, named, ())


def _memory(module: torch.nn.Module) -> int:
    """Bytes of all its weights."""
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage() for one in module.parameters()}
    return sum(one.nbytes() for one in storages.values())


def test_two_who_draw_leave_torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """That nothing is compiled while compiled passes are captured holds for the whole process, and no longer."""
    both, ends = threading.Barrier(2), iter([0.0, 0.3])
    drawing = threading.Event()

    def forward() -> None:
        if drawing.is_set():
            with suppress(threading.BrokenBarrierError):
                both.wait(0.5)
            time.sleep(next(ends))

    compiler, stance = TorchCompiler(None, backend="eager"), eval_frame._stance
    monkeypatch.setattr(compiler, "_prepare_forward", lambda work: work.forward)
    module = torch.nn.Identity()
    run = compiler._run_compiled(Work("nothing", module, forward), Arguments((), {}, ()))
    drawing.set()
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(run) for _ in range(2)]:
            done.result()
    assert eval_frame._stance == stance
    compiler.close()


def test_of_a_transformer_its_blocks_are_compiled(kits: Kits) -> None:
    engine, compiler = load_engine(**kits["flux"].settings()), TorchCompiler(None, backend="eager")
    expected = drawn(engine, num_inference_steps=2)[0]
    transformer = denoiser(engine.pipeline)
    graphs = Graphs(BakedDevice([1.0, 1.0, 0.5]), measure=False, compiler=compiler)
    for runner in engine.runners:
        runner.graphs = graphs
    try:
        for _ in range(3):
            drawn(replace(engine, graphs=graphs), num_inference_steps=STEPS)
            graphs.wait()
        assert graphs.mode == "compile"
    finally:
        compiler.close()
    for runner in engine.runners:
        runner.graphs = None
    assert np.array_equal(drawn(engine, num_inference_steps=2)[0], expected)
    assert not any(module._compiled_call_impl for module in transformer.modules()), "it is drawn by itself, too"


def test_a_compile_is_left_where_it_can_be_when_the_process_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts, begun, go_on = [], threading.Event(), threading.Event()

    def compile_part(part: Any, _: Any) -> Any:
        parts.append(part)
        begun.set()
        assert go_on.wait(WAIT_S)
        return part

    def forward(numbers: torch.Tensor) -> torch.Tensor:
        doubled = numbers * 2
        torch._dynamo.graph_break()
        return doubled + 1

    compiler = TorchCompiler(tmp_path, backend=compile_part)
    numbers = torch.ones(2)
    compiled, waiting = (
        compiler.submit(Work("sum", torch.nn.Identity(), forward), Arguments((numbers,), {}, (numbers,)))
        for _ in range(2)
    )
    assert begun.wait(WAIT_S)
    with ThreadPoolExecutor(1) as thread:
        closed = thread.submit(compiler.close)
        while not waiting.cancelled():
            time.sleep(0.01)
        go_on.set()
        closed.result(WAIT_S)
    assert compiled.exception() is not None
    assert len(parts) == 1
    assert "damaged" not in caplog.text


def test_a_drawing_never_waits_longer_than_to_where_a_compile_can_be_left() -> None:
    floor, places, done = Floor(), threading.Semaphore(0), threading.Event()

    def compile_something() -> None:
        with floor.compiling():
            while not done.is_set():
                places.release()
                floor.stand_still()

    thread = threading.Thread(target=compile_something)
    thread.start()
    try:
        assert places.acquire(timeout=WAIT_S)
        for _ in range(3):
            with floor.drawing(), floor.drawing():  # as on two devices
                while places.acquire(blocking=False):
                    pass
                assert not places.acquire(timeout=0.2), "it does not stand still"
            assert places.acquire(timeout=WAIT_S), "it does not go on"
    finally:
        done.set()
        thread.join(WAIT_S)
    assert not thread.is_alive()
