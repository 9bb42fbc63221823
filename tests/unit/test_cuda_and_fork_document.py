"""docs/cuda-and-fork.md and its programs are one: every program is in it, and it says of versions only what was run."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from examples.cuda_and_fork.harness.cases import CASES, PROGRAMS, REQUIREMENTS, WORKER
from examples.cuda_and_fork.harness.process_tree import Node, name_processes
from examples.cuda_and_fork.harness.results import CUDA, STAND_IN, find_differences, path_of, read, write
from examples.cuda_and_fork.programs.stand_in import REFUSAL

DOCUMENT = Path(__file__).parents[2] / "docs" / "cuda-and-fork.md"
SHARED = {"picture_model.py", "notes.py"}  # what the programs import, and the document need not explain
MAX_LINES = 60


def kept(device: str) -> Path:
    """The results from such a device. While there are none from a GPU, what needs them is skipped."""
    path = path_of(device)
    if not path.exists():
        pytest.skip(f"{path.name} is missing: run `python -m examples.cuda_and_fork.run_all --keep` on a GPU")
    return path


def prose() -> str:
    """The document without its tables of results."""
    return re.sub(r"<!-- ([\w-]+) -->\n.*?<!-- /\1 -->", "", DOCUMENT.read_text(), flags=re.DOTALL)


def test_every_program_is_explained_and_every_link_leads_to_a_file() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", prose()) if "://" not in link]
    linked = {(DOCUMENT.parent / link).resolve() for link in links}
    assert [path for path in linked if not path.exists()] == []
    shown = {case.program for case in CASES if case.program != WORKER}
    assert shown <= {path.name for path in PROGRAMS.glob("*.py")}
    explained = {path.name for path in linked if path.parent == PROGRAMS} | SHARED
    assert {path.name for path in PROGRAMS.glob("*.py")} - explained == set()


@pytest.mark.parametrize("program", sorted(PROGRAMS.glob("*.py")), ids=lambda path: path.name)
def test_every_program_is_short(program: Path) -> None:
    assert len(program.read_text().splitlines()) < MAX_LINES


def test_every_case_was_run_with_the_version_that_its_requirements_name() -> None:
    results = read(path_of(STAND_IN))
    assert list(results.cases) == [case.name for case in CASES]
    for case in CASES:
        if case.environment and (case.package != "boto3"):
            pinned = (REQUIREMENTS / f"{case.environment}.txt").read_text()
            assert f"{case.package}=={results.cases[case.name].version}\n" in re.sub(r"  #.*", "", pinned)


@pytest.mark.parametrize("device", [CUDA, STAND_IN])
def test_versions_in_the_text_are_those_that_were_run(device: str) -> None:
    ran = {seen.version for seen in read(kept(device)).cases.values()}
    said = set(re.findall(r"\b\d\d?\.\d\d?\.\d\d?\b", prose()))
    assert said and said <= ran


def test_the_stand_in_shows_what_cuda_showed() -> None:
    stand_in, cuda = read(path_of(STAND_IN)), read(kept(CUDA))
    facts = {name: seen.facts() for name, seen in stand_in.cases.items()}
    assert {name: seen.facts() for name, seen in cuda.cases.items()} == facts


def test_the_stand_in_refuses_in_the_words_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    with pytest.raises(RuntimeError) as refused:
        torch.cuda._lazy_init()
    assert str(refused.value) == REFUSAL


def test_whatever_a_case_shows_differently_is_a_difference(tmp_path: Path) -> None:
    results = read(path_of(STAND_IN))
    assert find_differences(results, path_of(STAND_IN)) == []
    name, seen = next(iter(results.cases.items()))
    others = [
        replace(seen, tree="main"),
        replace(seen, loads=seen.loads + 1),
        replace(seen, cuda_in="forked"),
        replace(seen, answer="HTTP 500"),
        replace(seen, error="RuntimeError: something"),
    ]
    for other in others:
        path = tmp_path / "kept.json"
        write(replace(results, cases={**results.cases, name: other}), path)
        assert [line.partition(":")[0] for line in find_differences(results, path)] == [name]


def test_processes_are_told_by_what_they_are() -> None:
    tree = Node(1, "main", (Node(2, "spawned", (Node(3, "forked"),)), Node(4, "spawned")))
    assert tree.render({1: ["loads"], 3: ["draws"]}) == "main (loads) → [spawned, spawned → forked (draws)]"
    assert name_processes(tree, [1, 2, 4, 9]) == "main and a process that has ended and 2 spawned"
