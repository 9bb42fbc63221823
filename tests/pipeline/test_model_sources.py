"""MODEL_NAME says where the model is: nowhere, a folder or a hub id; a hub that refuses is reported in one line."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    LMSDiscreteScheduler,
    StableDiffusionPipeline,
)
from PIL import Image

from tests.helpers import tiny_models
from tests.helpers.drawing import SMALL, assert_same, load_engine, picture
from tests.helpers.local_hub import COMMIT, OTHER_TOKEN, REPOSITORY, TOKEN, cache, serve
from tests.helpers.quick_python import PRELUDE
from worker.models.locate import find_model
from worker.settings import EMBEDDED_MODEL, read_settings

HERE = Path(__file__).parent
# huggingface_hub reads the environment when it is imported, hence a process for each hub; one serves several loads.
SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
from tests.helpers.drawing import load_engine, picture
from worker.errors import WorkerError

def load(environment):
    try:
        engine = load_engine(**environment)
    except WorkerError as error:
        return {"error": str(error), "code": error.code}
    picture(engine).save("picture.png")
    model, scheduler = engine.capabilities, engine.pipeline.scheduler
    return {"name": model.name, "family": model.family.name, "pipeline": type(engine.pipeline).__name__,
            "checker": model.safety_checker, "scheduler": model.scheduler.class_name, "config": dict(scheduler.config)}

print(json.dumps([load(environment) for environment in json.loads(sys.argv[1])], default=str))
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the classes and files of CompVis/stable-diffusion-v1-4, safety checker and PNDM included."""
    pipeline = tiny_models.sd1(safety_checker=True)
    torch.nn.init.constant_(pipeline.safety_checker.concept_embeds_weights, 10.0)  # nothing is that close: no alarm
    torch.nn.init.constant_(pipeline.safety_checker.special_care_embeds_weights, 10.0)
    folder = tiny_models.save(pipeline, tmp_path_factory.mktemp("published") / "sd14")
    # diffusers writes every default of today's PNDM, such as its timestep spacing; the published file has only these.
    config = {"_class_name": "PNDMScheduler", "num_train_timesteps": 1000, "trained_betas": None}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | tiny_models.PUBLISHED))
    return folder


def in_a_new_process(folder: Path, loads: list[dict[str, str]], **environment: str) -> list[dict[str, Any]]:
    """Load with each of these settings, draw folder/picture.png, and tell what was loaded or why it was not."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MODEL_"))}
    path = os.pathsep.join(map(str, (HERE, HERE.parent, HERE.parents[1])))
    environment = {**kept, "PYTHONPATH": path, "HF_HOME": str(folder / "hf"), **environment}
    command = [sys.executable, "-c", PRELUDE + SCRIPT, json.dumps(loads)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return results


@dataclass
class Visit:
    """What came of asking the local hub, without and with a token."""

    folder: Path
    seen: list[str | None]
    gated: dict[str, Any]
    unknown: dict[str, Any]
    old_name: dict[str, Any]
    new_name: dict[str, Any]
    other_vae: dict[str, Any]
    unknown_vae: dict[str, Any]


@pytest.fixture(scope="module")
def visit(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    folder = tmp_path_factory.mktemp("visit")
    loads = [
        {"MODEL_NAME": REPOSITORY},
        {"MODEL_NAME": "nobody/nothing", "HF_TOKEN": TOKEN},
        {"MODEL_NAME": REPOSITORY, "HF_AUTH_TOKEN": OTHER_TOKEN},
        {"MODEL_NAME": REPOSITORY, "HF_TOKEN": TOKEN},
        {"VAE_NAME": REPOSITORY, "HF_TOKEN": TOKEN},
        {"VAE_NAME": "nobody/nothing", "HF_TOKEN": TOKEN},
    ]
    with serve(published) as hub:
        results = in_a_new_process(folder, loads, HF_ENDPOINT=hub.url)
    return Visit(folder, hub.seen, *results)


def test_without_a_name_the_embedded_model_is_used() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MODEL_NAME", raising=False)
        settings = read_settings()
    source = find_model(settings.model_name)
    assert (source.kind, Path(source.location)) == ("folder", EMBEDDED_MODEL)
    assert source.name == "shapes"
    assert source.reason


def test_an_existing_folder_is_named_by_its_last_part(folders: dict[str, Path]) -> None:
    engine = load_engine(MODEL_NAME=f"{folders['sdxl']}/")
    assert (engine.capabilities.name, engine.capabilities.family.name) == ("sdxl", "sdxl")


@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")
def test_the_forum_posts_configuration(published: Path, tmp_path: Path) -> None:
    """CompVis/stable-diffusion-v1-4, LMS, scaled-linear betas, HF_AUTH_TOKEN: it draws what the post's code draws."""
    cache(published, tmp_path / "hf")
    post, absent = {"MODEL_NAME": REPOSITORY, "HF_AUTH_TOKEN": TOKEN}, {"MODEL_NAME": "nobody/nothing"}
    loaded, failed = in_a_new_process(tmp_path, [post, absent], HF_HUB_OFFLINE="1")

    assert (loaded["name"], loaded["family"]) == (REPOSITORY, "sd1")
    assert (loaded["pipeline"], loaded["checker"]) == ("StableDiffusionPipeline", True)
    assert loaded["scheduler"] == "LMSDiscreteScheduler"
    expected = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    assert expected.items() <= loaded["config"].items()
    assert_same(Image.open(tmp_path / "picture.png"), draw_as_in_the_post(published))

    assert "nobody/nothing" in failed["error"]
    assert "hub cannot be reached" in failed["error"]


def draw_as_in_the_post(folder: Path) -> Image.Image:
    # The post leaves steps_offset at 0; the pipeline sets it to 1, with a warning.
    lms = LMSDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, scheduler=lms)
    fields = {name: value for name, value in SMALL.items() if name != "seed"}
    drawn = pipeline(**fields, generator=torch.Generator().manual_seed(SMALL["seed"])).images[0]
    assert drawn.getbbox() is not None, "the safety checker should find nothing"
    return drawn


def test_a_gated_model_is_downloaded_with_the_token(visit: Visit) -> None:
    for loaded in (visit.old_name, visit.new_name):
        assert loaded.get("family") == "sd1", loaded
    assert set(visit.seen) == {None, f"Bearer {TOKEN}", f"Bearer {OTHER_TOKEN}"}
    assert list(visit.folder.glob(f"hf/hub/models--CompVis--*/snapshots/{COMMIT}/unet/*.safetensors"))


def test_a_gated_model_without_a_token_says_what_to_do(visit: Visit) -> None:
    assert visit.gated["code"] == "MODEL_ERROR"
    for word in (REPOSITORY, "gated", "HF_TOKEN"):
        assert word in visit.gated["error"]
    assert "\n" not in visit.gated["error"]


def test_a_name_that_the_hub_does_not_know(visit: Visit) -> None:
    assert visit.unknown["code"] == "MODEL_ERROR"
    assert "nobody/nothing" in visit.unknown["error"]
    assert "MODEL_NAME" in visit.unknown["error"]
    assert "\n" not in visit.unknown["error"]


def test_a_vae_is_downloaded_from_a_whole_models_repository(visit: Visit) -> None:
    assert visit.other_vae.get("family") == "shapes", visit.other_vae
    assert visit.unknown_vae["error"].startswith("VAE_NAME: nobody/nothing")
    assert "check VAE_NAME" in visit.unknown_vae["error"]


def test_a_folder_draws_the_same_under_any_name(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(folders["sd1"])
    assert picture(load_engine(MODEL_NAME=str(tmp_path / "alias"))) == picture(
        load_engine(MODEL_NAME=str(folders["sd1"]))
    )
