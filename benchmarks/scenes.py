"""The scenes that the benchmark plays, by name, and what each means. Knows no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["pictures", "jobs", "between", "cold", "load", "overhead", "gpus"]
Size = Literal["tiny", "full"]
# The models that have a tiny form.
TINY = ("sd15", "sdxl", "sd35", "flux", "z-image", "klein", "klein-9b", "qwen", "chroma")


@dataclass(frozen=True)
class Scene:
    """One thing that is measured.

    Attributes:
        model: what draws: the embedded model, or an architecture with random weights.
        pictures: in each job.
        side: of a picture, in pixels.
        scheduler: as jobs name it; None for the model's own.
        settings: of this worker, beside those that it is played with.
        rounds: how often each case is measured, unless the caller says otherwise.
        meaning: for readers, in whole sentences.
    """

    name: str
    kind: Kind
    model: str
    meaning: str
    pictures: int = 1
    side: int = 512
    steps: int = 50
    guidance: float = 7.5
    scheduler: str | None = "LMS"
    settings: Mapping[str, str] = field(default_factory=dict)
    rounds: int = 7

    def fit(self, size: Size) -> "Scene":
        """The same with what can be drawn in this size: a tiny model draws 64 pixels in four steps."""
        return replace(self, side=64, steps=4) if size == "tiny" and self.model in TINY else self


_ONE = "One job of one picture, from the job to the encoded picture, for a worker that is warm."
_FOUR = (
    "One job of four pictures. Plain diffusers draws them in one batch, as its users do (`num_images_per_prompt=4`)."
)

_DIVIDED = (
    "One job of several pictures, drawn by this worker with one GPU and with several, which divide them. Half of the "
    "time with two GPUs, a quarter with four, would be all that there is to gain."
)
_SPLIT = (
    "One job of one guided picture, drawn by this worker with one GPU and with two that share every step of it. Half "
    "of the time would be all that there is to gain."
)
_GRAPHS = {"ACCELERATION": "graphs"}

SCENES = (
    Scene("embedded-1", "pictures", "embedded", _ONE, side=256, steps=8, guidance=2.0),
    Scene("embedded-4", "pictures", "embedded", _FOUR, pictures=4, side=256, steps=8, guidance=2.0),
    Scene("sd15-1", "pictures", "sd15", _ONE),
    Scene("sd15-4", "pictures", "sd15", _FOUR, pictures=4),
    Scene("sdxl-1", "pictures", "sdxl", _ONE, side=1024, steps=25, scheduler="Euler"),
    Scene("sdxl-4", "pictures", "sdxl", _FOUR, pictures=4, side=1024, steps=25, scheduler="Euler"),
    Scene("flux-1", "pictures", "flux", _ONE, side=1024, steps=28, guidance=3.5, scheduler=None),
    Scene("z-image-1", "pictures", "z-image", _ONE, side=1024, steps=8, guidance=0.0, scheduler=None),
    Scene("klein-1", "pictures", "klein", _ONE, side=1024, steps=4, guidance=0.0, scheduler=None),
    Scene("klein-9b-1", "pictures", "klein-9b", _ONE, side=1024, steps=4, guidance=0.0, scheduler=None),
    Scene("qwen-1", "pictures", "qwen", _ONE, side=1024, steps=8, guidance=1.0, scheduler=None),
    Scene("chroma-1", "pictures", "chroma", _ONE, side=1024, steps=8, guidance=1.0, scheduler=None),
    Scene("sd35-1", "pictures", "sd35", _ONE, side=1024, steps=4, guidance=0.0, scheduler=None),
    Scene(
        "jobs-16",
        "jobs",
        "sd15",
        "Sixteen jobs of one picture wait; from when the first is taken until all are delivered, through "
        "RunPod's SDK and the emulated platform. *Drawing* is what the device takes for them, however long they wait.",
    ),
    Scene(
        "between-jobs",
        "between",
        "",
        "Eight jobs wait; from when the first is taken, the seconds for each, through RunPod's SDK and the emulated "
        "platform. Nothing is drawn: a job sleeps for its own time, in the real worker or in a plain function that is "
        "handed to the SDK. What is above its own time is what lies between jobs.",
        rounds=3,
    ),
    Scene(
        "cold",
        "cold",
        "sdxl",
        "From the start of a process to its first picture, all files read from the disk where the system lets their "
        "cache be dropped. The plain script imports torch and one pipeline class, loads, and draws the same picture.",
        side=1024,
        steps=25,
        scheduler="Euler",
    ),
    Scene(
        "load",
        "load",
        "flux",
        "A model from files that the system has in memory to weights on the device, all that is looked at on the way "
        "included, in a process that has loaded before.",
        scheduler=None,
    ),
    Scene(
        "overhead",
        "overhead",
        "embedded",
        "All that a job costs beside drawing, part by part: it is answered with a picture that is there already.",
        rounds=31,
    ),
    Scene("gpus-8", "gpus", "sd15", _DIVIDED, pictures=8),
    Scene("gpus-16", "gpus", "sd15", _DIVIDED, pictures=16),
    Scene("gpus-8-sdxl", "gpus", "sdxl", _DIVIDED, pictures=8, side=1024, steps=25, scheduler="Euler"),
    Scene("gpus-16-sdxl", "gpus", "sdxl", _DIVIDED, pictures=16, side=1024, steps=25, scheduler="Euler"),
    Scene("gpus-split-sd15", "gpus", "sd15", _SPLIT, settings=_GRAPHS),
    Scene("gpus-split-sdxl", "gpus", "sdxl", _SPLIT, side=1024, steps=25, scheduler="Euler", settings=_GRAPHS),
)
_TODAY = ("flux-1", "z-image-1", "klein-1", "klein-9b-1", "qwen-1", "chroma-1", "sd35-1")
ON_A_GPU = ("sd15-1", "sd15-4", "sdxl-1", "sdxl-4", *_TODAY, "jobs-16", "cold", "load", "overhead")
ON_A_CPU = ("embedded-1", "embedded-4", "sdxl-1", "flux-1", "jobs-16", "between-jobs", "cold", "overhead")


def find_scene(name: str) -> Scene:
    """The scene of this name."""
    return next(scene for scene in SCENES if scene.name == name)
