"""What a caller sees of a picture while it is drawn: small, cheap, and more and more like what it becomes."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from tests.helpers.drawing import SMALL, draw, hole, load_engine, picture, scene, uri
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.engine.generate import generate
from worker.engine.preview import unpack_latents
from worker.engine.steps import MakePreview
from worker.plan import make_plan

SHAPES = Path(__file__).parents[2] / "models" / "shapes"


def watched(engine: Engine, **fields: Any) -> tuple[list[Image], Image]:
    """The preview at each step, and the finished picture."""
    seen: list[Image] = []

    def on_step(done: int, total: int, make_preview: MakePreview | None) -> None:
        assert make_preview is not None
        shown = make_preview()
        assert shown is not None
        seen.append(shown)

    request = parse({"input": {**SMALL, "preview": True, **fields}}, engine.capabilities)[0]
    (drawn,) = generate(engine, make_plan(request), on_step)
    return seen, drawn.image


def likeness(one: Image, other: Image) -> float:
    """The correlation of their pixels, at the size of the first."""
    pixels: list[NDArray[np.float64]] = [np.asarray(each.resize(one.size), np.float64).ravel() for each in (one, other)]
    return float(np.corrcoef(*pixels)[0, 1])


def off_by(one: Image, other: Image) -> float:
    """How far their colours are from each other, of 255."""
    pixels = [np.asarray(each.resize(one.size), np.float64) for each in (one, other)]
    return float(np.abs(pixels[0] - pixels[1]).mean())


@pytest.fixture(scope="module")
def shapes() -> Engine:
    return load_engine(MODEL_NAME=str(SHAPES))


@pytest.fixture(scope="module")
def every(engines: dict[str, Engine], more_engines: dict[str, Engine]) -> dict[str, Engine]:
    return engines | more_engines


def test_late_previews_are_like_the_picture(shapes: Engine) -> None:
    job = {"width": None, "height": None, "num_inference_steps": 10, "guidance_scale": 2.0, "scheduler": "Euler"}
    seen, finished = watched(shapes, **job, prompt="a yellow star left of a green square on a black background")
    other = picture(shapes, **{**job, "num_inference_steps": 5}, prompt="a large red circle on a white background")

    # The embedded model's VAE is small and far from linear, so its previews are right in shape more than in colour;
    # its first step already knows the layout.
    assert likeness(seen[-1], finished) > max(0.55, likeness(seen[-1], other) + 0.5)
    assert off_by(seen[-1], finished) < 40


FAMILIES = {
    "sd1": ["Euler", "LMS", "DDIM", "DPM++ 2M", "PNDM", "LCM", "DPM2"],
    "sd2-v": ["Euler", "DDIM", "DPM++ 2M"],
    "sdxl": ["Euler", "DDIM"],
    "sd3": ["Flow Euler"],
    "flux": ["Flow Euler"],
    "chroma": [None],
    "lcm": [None],
}


@pytest.mark.parametrize(("family", "scheduler"), [(name, one) for name, row in FAMILIES.items() for one in row])
def test_the_last_preview_is_what_the_decoder_gets(
    family: str, scheduler: str | None, every: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny model's decoder draws nothing, so the latents themselves are compared."""
    engine = every[family]
    looked, decoded = [], []
    vae, make_preview = engine.pipeline.vae, type(engine.previewer).make_preview
    decode = vae.decode

    def at_look(previewer: Any, latents: Any, width: int, height: int) -> Image:
        looked.append(unpack_latents(engine.pipeline, latents, width, height))
        return make_preview(previewer, latents, width, height)

    def at_decode(latents: Any, *rest: Any, **named: Any) -> Any:
        decoded.append((latents - (vae.config.shift_factor or 0)) * vae.config.scaling_factor)
        return decode(latents, *rest, **named)

    monkeypatch.setattr(type(engine.previewer), "make_preview", at_look)
    monkeypatch.setattr(vae, "decode", at_decode)
    fields = {} if scheduler is None else {"scheduler": scheduler}
    seen, _ = watched(engine, **fields, width=64, height=96, num_inference_steps=8, guidance_scale=2.0)
    errors = [float((one - decoded[-1]).norm() / decoded[-1].norm()) for one in looked]

    assert errors[-1] < min(0.02, errors[0] / 20)
    assert all(later < earlier + 1e-3 for earlier, later in itertools.pairwise(errors))
    assert {one.size for one in seen} == {(8, 12)} and {one.mode for one in seen} == {"RGB"}


def test_channels_behind_rows_and_columns_of_frames_are_found() -> None:
    """As Kandinsky 5 has them, which draws pictures as videos of one frame."""
    latents = torch.randn(2, 1, 3, 4, 16)
    seen = unpack_latents(None, latents, 32, 24)
    assert all(torch.equal(seen[:, channel], latents[:, 0, :, :, channel]) for channel in range(16))


def test_without_it_there_is_nothing_to_look_at(sd1: Engine) -> None:
    previews: list[MakePreview | None] = []

    list(
        generate(
            sd1,
            make_plan(parse({"input": SMALL}, sd1.capabilities)[0]),
            lambda done, total, make_preview: previews.append(make_preview),
        )
    )

    assert previews == [None] * len(previews) != []


@pytest.mark.parametrize("family", ["sd1", "sdxl", "flux"])
def test_watching_changes_nothing(family: str, every: dict[str, Engine]) -> None:
    (drawn,) = draw(every[family])

    assert watched(every[family])[1].tobytes() == drawn.image.tobytes()


def test_every_pass_of_every_task_can_be_watched(sd1: Engine) -> None:
    painted, _ = watched(sd1, image=uri(scene()), mask=uri(hole()), strength=0.5)
    enlarged, _ = watched(sd1, hires={"scale": 2.0, "strength": 0.5}, scheduler="DDIM")

    assert {one.size for one in painted} == {(8, 8)}
    assert [one.size for one in enlarged] == [(8, 8)] * 4 + [(16, 16)] * 2


def test_a_preview_has_at_most_128_pixels_a_side(sd1: Engine) -> None:
    assert sd1.previewer.make_preview(torch.zeros(1, 4, 130, 260), 2080, 1040).size == (86, 43)


def test_previews_cost_one_use_of_the_encoder_and_none_of_the_decoder(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(MODEL_NAME=str(folders["sd1"]))
    vae, used = engine.pipeline.vae, []
    for name in ("encode", "decode"):
        method = getattr(vae, name)
        monkeypatch.setattr(vae, name, lambda *a, _m=method, _n=name, **k: (used.append(_n), _m(*a, **k))[1])

    for _ in range(2):
        watched(engine)

    assert used == ["encode", "decode", "decode"]
