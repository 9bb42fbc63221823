"""MODEL_NAME -> where the model's files are, with the reason for the choice. Knows folders and names, not tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from worker.errors import ModelError
from worker.settings import EMBEDDED_MODEL, Settings


@dataclass(frozen=True)
class Source:
    """Where a model is.

    Attributes:
        kind: a folder in diffusers layout, a single checkpoint file, or a repository on the hub.
        location: path or hub id.
        name: as answers and pictures name it.
        reason: why this source was chosen, for the log.
    """

    kind: Literal["folder", "file", "hub"]
    location: str
    name: str
    reason: str


def find_model(settings: Settings) -> Source:
    """The model that these settings name.

    Raises:
        ModelError: the name is neither a model folder, a `.safetensors` file nor a hub id.
    """
    name = settings.model_name
    if name is None:
        return Source("folder", str(EMBEDDED_MODEL), EMBEDDED_MODEL.name, "MODEL_NAME is not set: the embedded model")
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ModelError(f"MODEL_NAME: the folder {name} holds no model_index.json, so it is no diffusers model")
        return Source("folder", str(path), path.resolve().name, "MODEL_NAME is an existing folder")
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ModelError(f"MODEL_NAME: {name} is no .safetensors file; other formats can run code and are refused")
        return Source("file", str(path), path.stem, "MODEL_NAME is an existing file")
    if name.startswith(("/", ".", "~")) or name.count("/") != 1:
        raise ModelError(f"MODEL_NAME: {name} is neither a folder, a .safetensors file nor a hub id like org/name")
    return Source("hub", name, name, "MODEL_NAME names no local file: the hub")
