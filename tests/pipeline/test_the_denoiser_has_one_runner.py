"""Every forward pass of a UNet or transformer goes through its runner, which knows what acts in it."""

from collections.abc import Callable

import pytest
import torch

from tests.helpers.drawing import draw, load_engine
from tests.helpers.tiny_addons import Kits, denoiser
from worker.engine.engine import Engine


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Engine], list[object]]:
    """What acts in the denoiser at each pass that its runner runs from now on."""

    def noted(engine: Engine) -> list[object]:
        runner, seen = engine.runners[0], []
        run = runner.run

        def note(*inputs: object, **named: object) -> object:
            seen.append(runner.fingerprint)
            return run(*inputs, **named)

        monkeypatch.setattr(runner, "run", note)
        return seen

    return noted


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_it_runs_each_pass(family: str, engines: dict[str, Engine], passes: Callable[[Engine], list[object]]) -> None:
    engine, calls = engines[family], []
    seen = passes(engine)
    hook = denoiser(engine.pipeline).register_forward_hook(lambda *_: calls.append(1))

    draw(engine, num_images=2, hires={"scale": 2.0, "strength": 0.5})
    hook.remove()

    assert len(seen) == len(calls) > 0 and set(seen) == {()}


def test_what_is_attached_for_a_job_is_known_during_the_job_alone(
    kits: Kits, passes: Callable[[Engine], list[object]]
) -> None:
    engine = load_engine(**kits["sd1"].settings("loras"))
    seen = passes(engine)

    draw(engine)
    draw(engine, loras=[{"name": "plain", "scale": 0.5}])
    draw(engine, loras=[{"name": "plain", "scale": 0.75}])
    draw(engine)

    without, half, more = list(dict.fromkeys(seen))
    assert without == () and half != more
    assert seen[-1] == without and engine.runners[0].fingerprint == ()


def test_a_repair_makes_it_forget_what_it_has_prepared(sd1: Engine) -> None:
    before, layer = sd1.runners[0].version, denoiser(sd1.pipeline).conv_out
    layer.to(torch.float64)
    sd1.repair()
    assert sd1.runners[0].version > before and layer.weight.dtype == torch.float32


def test_a_repair_of_what_is_whole_leaves_it(sd1: Engine) -> None:
    before = sd1.runners[0].version
    sd1.repair()
    assert sd1.runners[0].version == before
