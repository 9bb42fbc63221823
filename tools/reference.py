"""Writes the parts of the documentation that are known elsewhere: tables from the code, the request's JSON schema, and
what the examples and the benchmark have shown.

python -m tools.reference           write them
python -m tools.reference --check   exit 1 if any of them has drifted from the code
"""

import worker.engine  # noqa: F401  # first: it quiets what libraries say while they are imported

# isort: split
import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import diffusers

from benchmarks.prices import read_prices
from benchmarks.results import read
from examples.cuda_and_fork.harness.table import tables
from tools.configuration import write_settings
from tools.costs import cost_rows, draw_costs
from tools.fields import answer_rows, elsewhere_rows, error_rows, field_rows, request_schema, timing_rows
from tools.house import map_rows
from tools.hub import HUB, insert_presets
from tools.markdown import code, insert, table
from tools.models import list_presets, memory_rows, overview_rows, pool_rows, write_guidance, write_models
from tools.performance import draw_charts, read_reports, several_gpus_rows, summary_rows, write_document
from tools.scaling import write_document as write_scaling
from worker.engine.pipelines import call_arguments, reads_clip, task_classes
from worker.models.capabilities import CONTROLLED, EDIT, IMAGE, MASK, TEXT
from worker.models.families import FAMILIES
from worker.models.schedulers import SCHEDULERS

ROOT = Path(__file__).parent.parent


def scheduler_rows() -> Iterator[tuple[str, ...]]:
    """The scheduler names."""
    yield "name", "also", "diffusers class"
    for row in SCHEDULERS:
        yield code(row.name), ", ".join(map(code, row.aliases)), code(row.class_name)


def task_rows() -> Iterator[tuple[str, ...]]:
    """What each family can be asked to do."""
    pipelines = {row.pipeline: row.title for row in FAMILIES if not row.traits and not row.named}
    pipelines["StableDiffusionPipeline"] = "Stable Diffusion 1.x and 2.x, the embedded model"
    pipelines["FluxPipeline"] = "FLUX.1"
    yield "family", *TASKS
    for name, title in pipelines.items():
        kind = getattr(diffusers, name)
        tasks = {task: call_arguments(one) for task, one in task_classes(kind).items()}
        can = {
            "image": IMAGE in tasks,
            "mask": MASK in tasks,
            "edit": EDIT in tasks,
            "controlnet": TEXT + CONTROLLED in tasks,
            "loras": hasattr(kind, "load_lora_weights"),
            "ip_adapter": hasattr(kind, "load_ip_adapter"),
            "weights, long prompts": reads_clip(kind),
            "clip_skip": reads_clip(kind) or "clip_skip" in call_arguments(kind),
            "guidance_rescale": "guidance_rescale" in call_arguments(kind),
            "hires": IMAGE in tasks,
            "refiner": "denoising_end" in tasks.get(TEXT, {}),
        }
        yield title, *("yes" if can[task] else "" for task in TASKS)


def family_rows() -> Iterator[tuple[str, ...]]:
    """The model families."""
    yield "family", "pipeline", "steps", "guidance", "scheduler", "largest picture"
    for row in FAMILIES:
        scheduler = code(row.scheduler) if row.scheduler else "the model's own"
        pixels = f"{row.max_pixels:,} pixels"
        yield row.title, code(row.pipeline), str(row.steps), write_guidance(row), scheduler, pixels


def house_rows() -> Iterator[tuple[str, ...]]:
    """The worker's files."""
    yield from map_rows(ROOT)


TASKS = (
    "image",
    "mask",
    "edit",
    "controlnet",
    "loras",
    "ip_adapter",
    "weights, long prompts",
    "clip_skip",
    "guidance_rescale",
    "hires",
    "refiner",
)
# Document -> the name of a block in it -> what it should hold.
BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"map": lambda: table(*house_rows())},
    "docs/api.md": {
        "fields": lambda: table(*field_rows()),
        "answer": lambda: table(*answer_rows()),
        "timings": lambda: table(*timing_rows()),
        "errors": lambda: table(*error_rows()),
        "schedulers": lambda: table(*scheduler_rows()),
    },
    "docs/configuration.md": {"settings": write_settings},
    "docs/requests.md": {"elsewhere": lambda: table(*elsewhere_rows())},
    "docs/deploy.md": {"pools": lambda: table(*pool_rows(read_prices()))},
    "docs/models.md": {
        "families": lambda: table(*family_rows()),
        "tasks": lambda: table(*task_rows()),
        "overview": lambda: table(*overview_rows(read(ROOT / "benchmarks" / "results" / "gpu.json"))),
        "models": lambda: write_models(read(ROOT / "benchmarks" / "results" / "gpu.json")),
        "memory": lambda: table(*memory_rows()),
    },
    "docs/several-gpus.md": {
        "gpus": lambda: table(*several_gpus_rows(read(ROOT / "benchmarks" / "results" / "gpu.json"))),
    },
}


def documents() -> dict[Path, str]:
    """Every generated file -> what it should hold."""
    written = {ROOT / name: fill(ROOT / name, blocks) for name, blocks in BLOCKS.items()}
    fork = ROOT / "docs" / "cuda-and-fork.md"
    text = fork.read_text()
    for name, shown in tables(ROOT / "examples" / "cuda_and_fork" / "results"):
        text = insert(text, name, shown)
    return {
        **written,
        fork: text,
        ROOT / "docs" / "request.schema.json": json.dumps(request_schema(), indent=2) + "\n",
        ROOT / HUB: presets(),
        **performance(),
        **scaling(),
        **costs(),
    }


def fill(document: Path, blocks: Mapping[str, Callable[[], str]]) -> str:
    """The document with its blocks as they should be."""
    text = document.read_text()
    for name, write in blocks.items():
        text = insert(text, name, write())
    return text


def presets() -> str:
    """The form of RunPod's Hub, with presets as they should be."""
    form = (ROOT / HUB).read_text()
    return insert_presets(form, list(list_presets(json.loads(form)["config"]["containerDiskInGb"])))


def performance() -> dict[Path, str]:
    """docs/performance.md and its charts -> what they should hold."""
    document = ROOT / "docs" / "performance.md"
    reports = read_reports(ROOT / "benchmarks" / "results")
    text = insert(document.read_text(), "summary", table(*summary_rows(reports["gpu"])))
    charts = ROOT / "docs" / "images" / "performance"
    return {
        document: insert(text, "results", write_document(reports)),
        **{charts / name: drawing for name, drawing in draw_charts(reports).items()},
    }


def scaling() -> dict[Path, str]:
    """docs/scaling.md and its plots -> what they should hold."""
    document = ROOT / "docs" / "scaling.md"
    text, plots = write_scaling(document.read_text(), insert, table, ROOT / "benchmarks" / "results")
    return {document: text, **{ROOT / "docs" / "images" / "scaling" / name: plot for name, plot in plots.items()}}


def costs() -> dict[Path, str]:
    """docs/costs.md and its plot -> what they should hold."""
    document, prices = ROOT / "docs" / "costs.md", read_prices()
    report = read(ROOT / "benchmarks" / "results" / "gpu.json")
    return {
        document: insert(document.read_text(), "costs", table(*cost_rows(report, prices))),
        ROOT / "docs" / "images" / "costs.svg": draw_costs(report, prices),
    }


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if anything has drifted")
    options = parser.parse_args()
    wanted = documents()
    drifted = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if options.check:
        names = ", ".join(str(path.relative_to(ROOT)) for path in drifted)
        raise SystemExit(f"not current: {names}; run `make docs`" if drifted else 0)
    for path in drifted:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()
