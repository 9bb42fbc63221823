"""A worker process that can write nowhere, and whose volume goes away between two jobs."""

import shutil
from pathlib import Path
from typing import Any

from tests.helpers.odd_paths import put

ROOT = Path(__file__).parents[2]
SMALL = {"prompt": "a red circle", "width": 64, "height": 64, "num_inference_steps": 2}


def test_it_draws_without_a_place_to_write_and_names_what_is_gone(
    platform: Any, start_worker: Any, tmp_path: Path
) -> None:
    loras = tmp_path / "volume"
    loras.mkdir()
    for name in ("a", "b", "c"):
        shutil.copy(ROOT / "models" / "loras" / "neon.safetensors", loras / f"{name}.safetensors")
    env = {"MODEL_NAME": str(ROOT / "models" / "shapes"), "LORA_DIR": str(loras), "JOB_TIMEOUT_S": "60"}
    worker = start_worker(Path(__file__).with_name("cramped_worker.py"), env=env)

    assert platform.ask({**SMALL, "loras": ["a"]})["status"] == "COMPLETED"
    words = put("a pipe", loras / "b.safetensors")
    failed = platform.ask({**SMALL, "loras": ["b"]})
    assert failed["error"] == f"MODEL_ERROR: {loras / 'b.safetensors'} {words}"
    loras.rename(tmp_path / "gone")
    failed = platform.ask({**SMALL, "loras": ["c"]})
    assert failed["error"] == f"MODEL_ERROR: {loras / 'c.safetensors'} is not there"
    assert platform.ask({**SMALL, "loras": ["a"]})["status"] == "COMPLETED", "it has been read"

    log = worker.log_path.read_text()
    assert "temporary files go to" in log or "set TMPDIR" in log
    platform.events.wait("ping", worker_id=worker.id)
