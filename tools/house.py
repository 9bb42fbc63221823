"""The map of the house: every file of the worker in the order in which a job meets it, and what it does.

Only the order is written here. What a file does is the first sentence of its own docstring, so the map stays true.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

# Room -> its files, in the order in which a job, or before it the start, meets them.
ORDER = {
    "": ["handler.py"],
    "worker": [
        "errors.py",
        "settings.py",
        "setting_names.py",
        "environment.py",
        "packages.py",
        "spared_imports.py",
        "read_ahead.py",
        "main_memory.py",
        "nearest.py",
        "clock.py",
        "waiting.py",
        "files.py",
        "http.py",
        "text.py",
        "version.py",
    ],
    "worker/runtime": [
        "worker.py",
        "loaded_model.py",
        "output_streams.py",
        "logs.py",
        "redaction.py",
        "tracebacks.py",
        "local_test.py",
        "gate.py",
        "intake.py",
        "job.py",
        "answering.py",
        "batcher.py",
        "parts.py",
        "replicas.py",
        "progress.py",
        "cancellation.py",
        "failures.py",
        "record.py",
    ],
    "worker/models": [
        "addresses.py",
        "locate.py",
        "checks.py",
        "gguf.py",
        "index.py",
        "json_file.py",
        "configs.py",
        "tokenizers.py",
        "quantised.py",
        "paths.py",
        "variants.py",
        "view.py",
        "hub.py",
        "civitai.py",
        "file_download.py",
        "pace.py",
        "hub_transfers.py",
        "shared_fetches.py",
        "download_log.py",
        "adapters.py",
        "families.py",
        "family.py",
        "unet_families.py",
        "transformer_families.py",
        "schedulers.py",
        "scheduler_classes.py",
        "control_kinds.py",
        "editing.py",
        "capabilities.py",
    ],
    "worker/api": [
        "parse.py",
        "schema.py",
        "elsewhere.py",
        "values.py",
        "translate.py",
        "sources.py",
        "start_pictures.py",
        "validators.py",
        "pictures.py",
        "controls.py",
        "validation_errors.py",
        "lora_tags.py",
        "resolve.py",
        "response.py",
        "contract.py",
        "openai.py",
        "openai_answers.py",
        "endpoint.py",
        "capabilities_answer.py",
        "field_description.py",
    ],
    "worker/images": ["load.py", "fetch.py", "guard.py", "avif.py", "resize.py", "masks.py", "outpaint.py"],
    "worker/": ["request.py", "plan.py"],
    "worker/engine/load": [
        "loader.py",
        "devices.py",
        "copies.py",
        "dtype.py",
        "mapped.py",
        "pretrained.py",
        "pipeline_class.py",
        "single_file.py",
        "checkpoint.py",
        "refiner.py",
        "transformer.py",
        "denoisers.py",
        "weight_file.py",
        "gguf_file.py",
        "vae.py",
        "processors.py",
        "glm_image.py",
        "constants.py",
        "chat_templates.py",
        "quantize.py",
        "fp8.py",
        "acceleration.py",
        "completeness.py",
        "describe.py",
        "defaults.py",
    ],
    "worker/engine": [
        "warm_device.py",
        "engine.py",
        "memory_plan.py",
        "memory.py",
        "bring.py",
        "grouping.py",
        "spread.py",
        "generate.py",
        "drawing.py",
        "batch.py",
        "batch_size.py",
        "steps.py",
        "writing.py",
        "meter.py",
        "cache.py",
        "pipelines.py",
        "unreadable.py",
        "weights.py",
        "scheduling.py",
        "preview.py",
        "decoder.py",
        "device_errors.py",
        "recovery.py",
        "self_test.py",
        "trials.py",
        "model_trial.py",
        "start_trials.py",
        "warm_up.py",
        "refusals.py",
    ],
    "worker/engine/adapters": [
        "loras.py",
        "lora_fit.py",
        "lora_file.py",
        "lora_targets.py",
        "lora_products.py",
        "lora_factors.py",
        "controlnets.py",
        "controlnet_file.py",
        "holes.py",
        "flux_inpainting.py",
        "ip_adapter.py",
        "embeddings.py",
        "tensors.py",
    ],
    "worker/engine/prompts": [
        "encode.py",
        "schedule.py",
        "phases.py",
        "clip.py",
        "weighting.py",
        "windows.py",
        "warnings.py",
    ],
    "worker/engine/passes": ["draw.py", "prepare.py", "run.py"],
    "worker/engine/denoiser": ["runner.py", "graphs.py", "cuda_graphs.py", "split.py", "compiled.py", "projections.py"],
    "worker/output": ["options.py", "address.py", "metadata.py", "png.py", "encode.py", "delivery.py", "bucket.py"],
}
TITLES = {
    "": "entry",
    "worker": "ground floor: what everybody may know",
    "worker/runtime": "runtime: feeds the engine and keeps the process honest",
    "worker/models": "models: what there is, and what it can do",
    "worker/api": "api: the contract with callers, both ways",
    "worker/images": "images: the pictures that a job brings",
    "worker/": "what is to be drawn",
    "worker/engine/load": "engine, the only code that knows torch and diffusers: loading",
    "worker/engine": "engine: drawing",
    "worker/engine/adapters": "engine: what is attached to a model",
    "worker/engine/prompts": "engine: prompts",
    "worker/engine/passes": "engine: one pass after the other",
    "worker/engine/denoiser": "engine: the denoiser",
    "worker/output": "output: pictures out",
}


def list_files() -> list[str]:
    """Every file on the map, by its path in the repository."""
    return [str(Path(room) / name) for room, names in ORDER.items() for name in names]


def map_rows(root: Path) -> Iterator[tuple[str, ...]]:
    """The map as the rows of a table, rooms as rows of their own."""
    yield "file", "what it does"
    for room, names in ORDER.items():
        yield f"**{TITLES[room]}**", ""
        for name in names:
            path = Path(room) / name
            yield f"[{path}]({path})", read_purpose(root / path)


def read_purpose(path: Path) -> str:
    """The first sentence of a file's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=[.;])\s+(?=[A-Z])", paragraph)[0].rstrip(".;")
