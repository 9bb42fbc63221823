"""docs/cuda-and-fork.md and its programs are one: every program is in it, and it says of versions only what was run."""

import multiprocessing
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from examples.cuda_and_fork import run_all
from examples.cuda_and_fork.harness import results as kept_results
from examples.cuda_and_fork.harness.cases import CASES, PROGRAMS, REQUIREMENTS, WORKER
from examples.cuda_and_fork.harness.process_tree import Node, name_processes
from examples.cuda_and_fork.harness.results import CUDA, STAND_IN, Results, Seen, find_differences, path_of, read, write
from examples.cuda_and_fork.harness.running import DEVICE
from examples.cuda_and_fork.harness.table import NO_GPU_YET, case_rows, tables
from examples.cuda_and_fork.programs.stand_in import REFUSAL

DOCUMENT = Path(__file__).parents[2] / "docs" / "cuda-and-fork.md"
QUESTION = ("sanic", "gunicorn", "flask", WORKER)  # how the programs of the question and its answers begin
SHARED = {"picture_model.py", "notes.py"}  # what the programs import, and the document need not explain
MAX_LINES = 60


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


@pytest.mark.parametrize("device", [CUDA, STAND_IN])
def test_every_case_was_run_with_the_version_that_its_requirements_name(device: str) -> None:
    results = read(path_of(device))
    assert list(results.cases) == [case.name for case in CASES]
    for case in CASES:
        newer = device == CUDA and case.package == "boto3"  # 1.44.8, which that machine had
        if case.environment and not newer:
            pinned = (REQUIREMENTS / f"{case.environment}.txt").read_text()
            assert f"{case.package}=={results.cases[case.name].version}\n" in re.sub(r"  #.*", "", pinned)


@pytest.mark.parametrize("device", [CUDA, STAND_IN])
def test_versions_in_the_text_are_those_that_were_run(device: str) -> None:
    ran = {seen.version for seen in read(path_of(device)).cases.values()}
    said = set(re.findall(r"\b\d\d?\.\d\d?\.\d\d?\b", prose()))
    assert said and said <= ran


def test_a_gpu_has_shown_every_case_of_the_question() -> None:
    asked = {case.name for case in CASES if case.program.startswith(QUESTION)}
    assert asked and asked - read(path_of(CUDA)).cases.keys() == set()


def test_the_stand_in_shows_what_cuda_showed() -> None:
    stand_in, cuda = dict(read(path_of(STAND_IN)).cases), read(path_of(CUDA)).cases
    facts = {name: stand_in[name].facts() for name in cuda}
    assert {name: seen.facts() for name, seen in cuda.items()} == facts


def test_the_document_says_of_each_case_whether_a_gpu_has_shown_it() -> None:
    cuda = read(path_of(CUDA)).cases
    _, _, *rows = dict(tables(path_of(CUDA).parent))["runs"].split("\n\n")[1].splitlines()
    marked = [row.endswith(f"| {NO_GPU_YET} |") for row in rows]
    assert marked == [case.name not in cuda for case in CASES]


def test_a_table_of_one_run_tells_of_that_run_alone() -> None:
    cuda = read(path_of(CUDA))
    name, seen = next(iter(cuda.cases.items()))
    assert len(list(case_rows(replace(cuda, cases={name: seen})))) == 2


@pytest.mark.parametrize("device", [CUDA, STAND_IN])
def test_loading_settles_the_start_method_and_so_does_the_stand_in(device: str) -> None:
    ask = """import gc; gc.disable()  # imports leave no garbage
import multiprocessing, picture_model
print(multiprocessing.get_start_method(allow_none=True))
picture_model.read_pipeline()
print(multiprocessing.get_start_method(allow_none=True))"""
    env = os.environ | {DEVICE: device, "PYTHONPATH": str(PROGRAMS)}
    told = subprocess.run([sys.executable, "-c", ask], env=env, capture_output=True, text=True, check=True, timeout=120)
    before, after = told.stdout.split()
    assert before == "None" and after == multiprocessing.get_all_start_methods()[0]  # the default


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


def test_a_run_that_is_cut_off_has_kept_what_it_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saw = Seen("", "main", 1, "main", "a picture", "")
    first, second, *_ = (case for case in CASES if not case.environment)
    earlier = Results("stand-in for CUDA, no GPU", run_all.read_versions(), {CASES[0].name: saw})
    write(earlier, tmp_path / "kept.json")

    def observe(case: object, *_: object) -> Seen:
        if case == second:
            raise KeyboardInterrupt
        return saw

    monkeypatch.setattr(run_all, "observe", observe)
    monkeypatch.setattr(kept_results, "path_of", lambda device: tmp_path / "kept.json")
    monkeypatch.setattr(
        sys, "argv", ["run_all", "--stand-in", "--keep", "--to", str(tmp_path), first.name, second.name]
    )
    with pytest.raises(KeyboardInterrupt):
        run_all.main()
    assert read(tmp_path / "kept.json").cases == {CASES[0].name: saw, first.name: saw}
    assert read(tmp_path / f"{STAND_IN}.json").cases == {first.name: saw}
