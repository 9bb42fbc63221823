"""Jobs of every kind, for tiny models with all that there is beside them."""

from typing import Any

import numpy as np

from tests.helpers.drawing import draw, hole, load_engine, scene, uri
from tests.helpers.tiny_addons import Kits
from worker.engine.engine import Engine

Pictures = list[np.ndarray[Any, Any]]

IMAGE, MASK, SHOWN = uri(scene()), uri(hole()), {"image": uri(scene(seed=1)), "scale": 0.6}
EDGES = {"name": "edges", "image": uri(scene(seed=2)), "scale": 0.7}
DEPTH = {"name": "depth", "image": uri(scene(seed=3)), "end": 0.5}
JOBS: list[dict[str, Any]] = [
    {},
    {"lora": "plain"},
    {},
    {"loras": ["plain", {"name": "wordy", "scale": -0.5}]},
    {"image": IMAGE, "strength": 0.6},
    {"image": IMAGE, "mask": MASK},
    {"hires": {"scale": 1.5}},
    {"controlnet": EDGES},
    {"ip_adapter": SHOWN},
    {"controlnet": [EDGES, DEPTH], "ip_adapter": SHOWN, "lora": "wordy"},
    {"num_images": 2, "width": 96},
    {},
]


def equipped(kits: Kits, family: str, ip_adapter: bool = True, **environment: str) -> Engine:
    """The family's tiny model, with all there is beside it."""
    parts = ["loras", "controlnets", *(["ip_adapter"] if ip_adapter else [])]
    return load_engine(**kits[family].settings(*parts), **environment)


def drawn(engine: Engine, **job: Any) -> Pictures:
    """Values from 0 to 255."""
    return [np.asarray(one.image, np.float64) for one in draw(engine, **job)]
