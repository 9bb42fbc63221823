"""A job that names nothing draws, with an owner's defaults, what it draws elsewhere when it names them all."""

from pathlib import Path

from tests.helpers.drawing import assert_same, load_engine, picture
from worker.engine.engine import Engine

DEFAULTS = {
    "DEFAULT_STEPS": "3",
    "DEFAULT_GUIDANCE_SCALE": "2.5",
    "DEFAULT_NEGATIVE_PROMPT": "blue, blurry",
    "DEFAULT_SIZE": "64x96",
    "DEFAULT_SCHEDULER": "dpmpp_2m",
}
UNNAMED = dict.fromkeys(("num_inference_steps", "guidance_scale", "width", "height"))  # null: left out
NAMED = {
    "num_inference_steps": 3,
    "guidance_scale": 2.5,
    "negative_prompt": "blue, blurry",
    "width": 64,
    "height": 96,
    "scheduler": "DPM++ 2M",
}


def test_all_of_them(folders: dict[str, Path], sd1: Engine) -> None:
    engine = load_engine(MODEL_NAME=str(folders["sd1"]), **DEFAULTS)
    ours = picture(engine, **UNNAMED)
    assert ours.size == (64, 96)
    assert_same(ours, picture(sd1, **NAMED))
