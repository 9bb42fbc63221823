"""Draws docs/gallery.md: what the embedded model can be asked to do, each with the request that made it.

python -m tools.gallery           draw the pictures, and write the page
python -m tools.gallery --page    write the page alone

Jobs go through handler(job), as RunPod's do. A request that names a file of the gallery means the file itself.
"""

import argparse
import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

ROOT = Path(__file__).parent.parent
PAGE = Path("docs") / "gallery.md"
PICTURES = Path("docs") / "images" / "gallery"
MASK = "mask.png"
STAR = "a big blue star on a yellow background"
INTRODUCTION = """# Gallery

What the embedded model can be asked to do. Each request was sent to `handler(job)` as it stands here, and the picture
below it is what came back; where a request names a file of this page, it holds that picture as a data URI.
`make gallery` draws all of it again, on a laptop in a minute or two. The embedded model draws plain shapes; the
requests are the same for every model that can do the task
([which can do what](models.md#what-each-family-can-be-asked-to-do)), and [requests.md](requests.md)
explains the fields.
"""


@dataclass(frozen=True)
class Scene:
    """One request, and what is to be seen.

    Attributes:
        name: of its pictures' files; with a number behind it where there are several.
        request: a job's input, where the name of a file stands for the file.
        count: of its pictures.
    """

    name: str
    title: str
    text: str
    request: Mapping[str, Any]
    count: int = 1

    @property
    def files(self) -> tuple[str, ...]:
        """The names of its pictures' files."""
        numbers = range(1, self.count + 1)
        return (f"{self.name}.png",) if self.count == 1 else tuple(f"{self.name}-{number}.png" for number in numbers)


SCENES = (
    Scene(
        "star",
        "Text to image",
        "A prompt, and a seed, so that the same picture comes again.",
        {"prompt": STAR, "seed": 42},
    ),
    Scene(
        "grid",
        "Several prompts, several pictures",
        "Three prompts in one job, two pictures of each; the seeds count up.",
        {
            "prompt": [
                "a striped orange circle on a navy background",
                "an outlined white heart on a red background",
                "three small green triangles in a row on a white background",
            ],
            "num_images": 2,
            "seed": 7,
        },
        count=6,
    ),
    Scene(
        "image-to-image",
        "Image to image",
        "Starts from the star: most of it is drawn anew, its place and the background stay.",
        {"prompt": "a big red heart on a yellow background", "image": "star.png", "strength": 0.8, "seed": 1},
    ),
    Scene(
        "two",
        "Inpainting",
        "A picture to be changed in a part.",
        {"prompt": "a red circle to the left of a blue star on a white background", "seed": 3},
    ),
    Scene(
        "inpainting",
        "",
        "White parts of the mask are drawn anew; the star stays, to the bit.",
        {
            "prompt": "a green heart to the left of a blue star on a white background",
            "image": "two.png",
            "mask": MASK,
            "seed": 3,
        },
    ),
    Scene(
        "outpainting",
        "Outpainting",
        "Drawn on beyond the edges of the star's picture, 64 pixels to the left and to the right.",
        {"prompt": STAR, "image": "star.png", "outpaint": {"left": 64, "right": 64}, "seed": 1},
    ),
    Scene(
        "lora",
        "LoRA",
        "The same scene without a LoRA and with `neon`, which comes with the model.",
        {"prompt": "a big blue star to the left of a pink heart on a white background", "seed": 5},
    ),
    Scene(
        "lora-neon",
        "",
        "",
        {
            "prompt": "a big blue star to the left of a pink heart on a white background",
            "loras": [{"name": "neon", "scale": 1}],
            "seed": 5,
        },
    ),
    Scene(
        "hires",
        "A second pass in higher resolution",
        "512x512 from a model that draws 256x256: enlarged, and its edges drawn anew.",
        {"prompt": STAR, "hires": {"scale": 2, "strength": 0.3}, "seed": 42},
    ),
    Scene(
        "replay",
        "Replay",
        "A picture given back asks for itself: every pixel is that of the star.",
        {"replay": "star.png"},
    ),
    Scene(
        "replay-changed",
        "",
        "Fields beside it override: everything as it was, but for the prompt.",
        {"replay": "star.png", "prompt": "a big green star on a yellow background"},
    ),
)


def write_page() -> str:
    """docs/gallery.md."""
    return "\n".join([INTRODUCTION, *(line for scene in SCENES for line in _write_scene(scene))]).rstrip() + "\n"


def _write_scene(scene: Scene) -> Iterator[str]:
    if scene.title:
        yield f"## {scene.title}\n"
    if scene.text:
        yield f"{scene.text}\n"
    yield f"```json\n{write_request(scene.request)}\n```\n"
    shown = [f for f in (scene.request.get("mask"), *scene.files) if f]
    yield " ".join(f"![{_describe(scene, name)}](images/gallery/{name})" for name in shown) + "\n"


def write_request(request: Mapping[str, Any]) -> str:
    """The job as JSON, one field a line."""
    fields = ",\n".join(f'  "{name}": {json.dumps(value)}' for name, value in request.items())
    return f'{{"input": {{\n{fields}\n}}}}'


def _describe(scene: Scene, name: str) -> str:
    """What a picture shows, for those who do not see it."""
    if name == MASK:
        return "the mask: its left half is white, its right half black"
    prompts = scene.request.get("prompt", STAR)
    if isinstance(prompts, str):
        return str(prompts)
    return str(prompts[scene.files.index(name) * len(prompts) // scene.count])


def draw_gallery(folder: Path) -> None:
    """All pictures, each from its request.

    Raises:
        SystemExit: a job failed.
    """
    from handler import handler  # which loads the model

    folder.mkdir(parents=True, exist_ok=True)
    (folder / MASK).write_bytes(draw_mask())
    for scene in SCENES:
        answer = handler({"id": scene.name, "input": read_files(scene.request, folder)})
        if not isinstance(answer, dict) or "error" in answer:
            raise SystemExit(f"{scene.name}: {answer}")
        _keep(answer["images"], [folder / name for name in scene.files])


def draw_mask() -> bytes:
    """A mask of the left half."""
    mask = Image.new("L", (256, 256), 0)
    ImageDraw.Draw(mask).rectangle((0, 0, 127, 255), fill=255)
    return _encode(mask)


def _encode(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def read_files(request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The request with what its files hold, as data URIs, in place of their names."""
    return {name: _read(value, folder) for name, value in request.items()}


def _read(value: Any, folder: Path) -> Any:
    if not (isinstance(value, str) and value.endswith(".png")):
        return value
    return f"data:image/png;base64,{base64.b64encode((folder / value).read_bytes()).decode()}"


def _keep(answered: Sequence[str], files: Sequence[Path]) -> None:
    for picture, path in zip(answered, files, strict=True):
        path.write_bytes(base64.b64decode(picture.partition(",")[2]))


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="write the page alone")
    if not parser.parse_args().page:
        draw_gallery(ROOT / PICTURES)
    (ROOT / PAGE).write_text(write_page())


if __name__ == "__main__":
    main()
