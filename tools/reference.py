"""Writes the parts of the documentation that are known elsewhere: tables from the code, the request's JSON schema, and
what the examples and the benchmark have shown.

python -m tools.reference           write them
python -m tools.reference --check   exit 1 if any of them has drifted from the code
"""

import worker.engine  # noqa: F401  # first: it quiets what libraries say while they are imported

# isort: split
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
from pydantic import AliasChoices

from benchmarks.prices import read_prices
from benchmarks.results import read
from examples.cuda_and_fork.harness.table import tables
from tools.costs import cost_rows, draw_costs
from tools.house import map_rows
from tools.models import memory_rows, write_models
from tools.performance import draw_charts, read_reports, write_document
from tools.scaling import write_document as write_scaling
from worker.api.elsewhere import ElsewhereFields
from worker.api.schema import Fields
from worker.api.values import ANYTHING, Neutral
from worker.engine.pipelines import call_arguments, reads_clip, task_classes
from worker.models.capabilities import CONTROLLED, EDIT, IMAGE, MASK, TEXT
from worker.models.families import FAMILIES
from worker.models.schedulers import SCHEDULERS
from worker.settings import Settings

ROOT = Path(__file__).parent.parent

README = ROOT / "README.md"
SCHEMA = ROOT / "docs" / "request.schema.json"


def table(*rows: tuple[str, ...]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def code(text: object) -> str:
    """Inline code, or nothing for nothing."""
    return f"`{text}`" if text != "" else ""


def allowed(schema: dict[str, Any]) -> str:
    """What a field takes, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(filter(None, (allowed(choice) for choice in schema["anyOf"])))
    if "enum" in schema:
        return ", ".join(code(choice) for choice in schema["enum"])
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        low = f"above {schema['exclusiveMinimum']}"
    span = f"{low} to {high}" if high is not None else f"{low} or more" if low is not None else ""
    kind = {"null": "", "array": "list"}.get(schema.get("type", "object"), schema.get("type", "object"))
    return f"{kind} {span}".strip()


def request_schema() -> dict[str, Any]:
    """The JSON schema of a request, the fields of our own first."""
    schema = Fields.model_json_schema(by_alias=False)
    own_first = sorted(schema["properties"].items(), key=lambda item: item[0] in ElsewhereFields.model_fields)
    return {**schema, "properties": dict(own_first)}


def field_rows() -> Iterator[tuple[str, ...]]:
    """The request fields of our own."""
    yield "field", "also written", "takes", "default", "meaning"
    properties = request_schema()["properties"]
    for name, field in Fields.model_fields.items():
        if name in ElsewhereFields.model_fields:
            continue
        alias = field.validation_alias
        others = [str(choice) for choice in alias.choices[1:]] if isinstance(alias, AliasChoices) else []
        optional = "" if field.default is None else code(json.dumps(field.default, default=str))
        default = "required" if field.is_required() else optional
        takes = allowed(properties[name])
        yield code(name), ", ".join(map(code, others)), takes, default, field.description or ""


def elsewhere_rows() -> Iterator[tuple[str, ...]]:
    """The request fields that other services have."""
    yield "field", "also written", "meaning", "asks for nothing"
    for name, field in ElsewhereFields.model_fields.items():
        alias = field.validation_alias
        others = [str(choice) for choice in alias.choices[1:]] if isinstance(alias, AliasChoices) else []
        rule = next((one for one in field.metadata if isinstance(one, Neutral)), None)
        values = [] if rule is None else [json.dumps(one) for one in rule.values if one is not ANYTHING]
        nothing = "whatever it holds" if rule and ANYTHING in rule.values else ", ".join(map(code, values))
        beside = f"; without {code(rule.beside)}" if rule and rule.beside else ""
        yield (
            code(name),
            ", ".join(map(code, others)),
            rule.instead if rule else field.description or "",
            nothing + beside,
        )


def setting_rows() -> Iterator[tuple[str, ...]]:
    """The environment variables."""
    yield "variable", "default", "meaning"
    for name, field in Settings.model_fields.items():
        yield code(name.upper()), "" if field.default is None else code(field.default), field.description or ""


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
            "refiner": "denoising_end" in call_arguments(kind),
        }
        yield title, *("yes" if can[task] else "" for task in TASKS)


def family_rows() -> Iterator[tuple[str, ...]]:
    """The model families."""
    yield "family", "pipeline", "steps", "guidance", "scheduler", "largest picture"
    for row in FAMILIES:
        scheduler = code(row.scheduler) if row.scheduler else "the model's own"
        pixels = f"{row.max_pixels:,} pixels"
        yield row.title, code(row.pipeline), str(row.steps), f"{row.guidance_scale:g}", scheduler, pixels


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
TABLES = {
    "fields": field_rows,
    "tasks": task_rows,
    "settings": setting_rows,
    "schedulers": scheduler_rows,
    "families": family_rows,
    "map": house_rows,
}


def insert(document: str, name: str, text: str) -> str:
    """The document with this text between the two marks of this name."""
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    document, found = block.subn(lambda match: f"{match[1]}{text}\n{match[2]}", document)
    if not found:
        raise SystemExit(f"a document has no place for the table of {name}")
    return document


def documents() -> dict[Path, str]:
    """Every generated file -> what it should hold."""
    readme = README.read_text()
    for name, rows in TABLES.items():
        readme = insert(readme, name, table(*rows()))
    requests = ROOT / "docs" / "requests.md"
    models = ROOT / "docs" / "models.md"
    fork = ROOT / "docs" / "cuda-and-fork.md"
    text = fork.read_text()
    for name, shown in tables(ROOT / "examples" / "cuda_and_fork" / "results"):
        text = insert(text, name, shown)
    return {
        README: readme,
        requests: insert(requests.read_text(), "elsewhere", table(*elsewhere_rows())),
        models: insert(insert(models.read_text(), "models", write_models()), "memory", table(*memory_rows())),
        fork: text,
        SCHEMA: json.dumps(request_schema(), indent=2) + "\n",
        **performance(),
        **scaling(),
        **costs(),
    }


def performance() -> dict[Path, str]:
    """docs/performance.md and its charts -> what they should hold."""
    document = ROOT / "docs" / "performance.md"
    reports = read_reports(ROOT / "benchmarks" / "results")
    charts = ROOT / "docs" / "images" / "performance"
    return {
        document: insert(document.read_text(), "results", write_document(reports)),
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
    wanted = documents()
    drifted = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        names = ", ".join(str(path.relative_to(ROOT)) for path in drifted)
        raise SystemExit(f"not current: {names}; run `make docs`" if drifted else 0)
    for path in drifted:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()
