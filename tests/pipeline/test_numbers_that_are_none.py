"""A model that overflows never answers with a black picture: it is decoded in float32, or the error says so."""

import base64
import io
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers.drawing import assert_same
from tests.helpers.faults import a_worker, engine_of, giving, last_layer, run, state
from tests.helpers.tiny_addons import Kits
from worker.runtime.worker import Worker

NONE = [math.nan, math.inf, -math.inf]


@pytest.fixture(scope="module", params=["sd1", "sdxl", "sd3", "flux"])
def worker(request: pytest.FixtureRequest, kits: Kits) -> Iterator[Worker]:
    """One of each family."""
    with a_worker(**kits[request.param].settings()) as worker:
        yield worker


@pytest.fixture(scope="module")
def half(kits: Kits) -> Iterator[Worker]:
    """One in half precision, whose VAE diffusers does not cast itself."""
    with a_worker(**kits["sd1"].settings(), DTYPE="bfloat16") as worker:
        yield worker


def shown(answer: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(answer["images"][0].partition(",")[2])))


def test_latents_that_are_none_are_an_error(worker: Worker) -> None:
    before, engine = run(worker)["images"], engine_of(worker)
    for number in NONE if engine.capabilities.family.name == "sd1" else NONE[:1]:
        with giving(last_layer(engine, "denoiser"), number, lambda call, _: call == 4) as fault:
            answer = run(worker)
        assert fault.happened == 1
        assert answer["code"] == "NON_FINITE_OUTPUT"
        assert "latents" in answer["error"] and "DTYPE" in answer["error"]
        assert "images" not in answer and "refresh_worker" not in answer
        assert run(worker)["images"] == before


@pytest.mark.parametrize("fields", [{"hires": {"scale": 1.5}}, {"hires": {"scale": 1.5, "upscaler": "latent"}}])
def test_nor_do_they_reach_a_second_pass_unseen(fields: dict[str, Any], half: Worker) -> None:
    with giving(last_layer(engine_of(half), "denoiser"), math.nan, lambda call, _: call == 4):
        answer = run(half, **fields)
    assert answer["code"] == "NON_FINITE_OUTPUT"
    assert "error" not in run(half)


@pytest.mark.parametrize("number", NONE)
def test_a_decoder_that_overflows_in_half_precision_decodes_in_float32(number: float, half: Worker) -> None:
    engine = engine_of(half)
    before, how_it_was = run(half), state(engine)
    layer = last_layer(engine, "decoder")

    with giving(layer, number, lambda _, output: output.dtype != torch.float32) as fault:
        answer = run(half)

    assert (fault.happened, fault.calls) == (1, 2)
    assert answer["warnings"] == []
    assert torch.allclose(pixels(answer), pixels(before), atol=8)  # of 255
    assert state(engine) == how_it_was
    assert run(half)["images"] == before["images"]


@pytest.mark.parametrize(("dtype", "calls"), [("float32", 1), ("bfloat16", 2)])
def test_one_picture_of_several_is_enough(dtype: str, calls: int, kits: Kits) -> None:
    with a_worker(**kits["sd1"].settings(), DTYPE=dtype, MAX_BATCH="3") as worker:
        decoder = last_layer(engine_of(worker), "decoder")
        for picture in (1, 2, 3):
            with giving(decoder, math.nan, lambda call, _, first=picture: 0 <= call - first < calls) as fault:
                answer = run(worker, num_images=3)
            assert fault.happened == calls, "each is decoded by itself, and in float32 if it has to be"
            assert answer["code"] == "NON_FINITE_OUTPUT" and "decoded" in answer["error"]
            assert "error" not in run(worker, num_images=3)


def test_what_a_job_left_that_failed_is_not_told_of_the_next(worker: Worker) -> None:
    vae, guard = engine_of(worker).pipeline.vae, engine_of(worker).decoder_guard
    shape = (1, vae.config.latent_channels, 4, 4)
    with pytest.raises(KeyboardInterrupt), torch.no_grad(), guard.checking():
        vae.decode(torch.full(shape, math.nan))
        raise KeyboardInterrupt
    with torch.no_grad(), guard.checking():
        vae.decode(torch.zeros(shape))


def pixels(answer: dict[str, Any]) -> torch.Tensor:
    image = shown(answer)
    assert_same(image, image)
    return torch.tensor(list(image.tobytes()), dtype=torch.float32)


def test_one_that_overflows_in_float32_too_is_an_error(half: Worker) -> None:
    engine = engine_of(half)
    before, how_it_was = run(half), state(engine)
    with giving(last_layer(engine, "decoder"), math.inf, lambda call, _: call <= 2) as fault:
        answer = run(half)
    assert fault.happened == 2
    assert answer["code"] == "NON_FINITE_OUTPUT" and "images" not in answer
    assert state(engine) == how_it_was
    assert run(half)["images"] == before["images"]


def test_float32_is_not_decoded_twice(worker: Worker) -> None:
    with giving(last_layer(engine_of(worker), "decoder"), math.nan, lambda call, _: call == 1) as fault:
        answer = run(worker)
    assert answer["code"] == "NON_FINITE_OUTPUT"
    assert fault.calls == 2, "once for the job, once for the proof"
    worker.gate.job_succeeded()


def test_what_diffusers_casts_itself_goes_back_too(kits: Kits) -> None:
    """Stable Diffusion XL's VAE is in float32 already when its decoder fails."""
    with a_worker(**kits["sdxl"].settings(), DTYPE="float16") as worker:
        engine = engine_of(worker)
        before, how_it_was = run(worker), state(engine)
        with giving(last_layer(engine, "decoder"), math.nan, lambda call, _: call == 1):
            assert run(worker)["code"] == "NON_FINITE_OUTPUT"
        assert state(engine) == how_it_was
        assert engine.pipeline.vae.dtype == torch.float16
        assert run(worker)["images"] == before["images"]
