"""Every program of examples/cuda_and_fork, started for real, shows what docs/cuda-and-fork.md says; on its stand-in."""

import sys
from pathlib import Path

import pytest

from examples.cuda_and_fork.harness.cases import CASES, Case
from examples.cuda_and_fork.harness.observe import observe
from examples.cuda_and_fork.harness.results import STAND_IN, path_of, read
from examples.cuda_and_fork.make_environments import ENVIRONMENTS, find_python

EXPECTED = read(path_of(STAND_IN)).cases


@pytest.fixture
def python(case: Case) -> Path:
    """The interpreter of the case's environment, which `make test` makes."""
    if not case.environment:
        return Path(sys.executable)
    found = find_python(ENVIRONMENTS / case.environment)
    if not found.exists():
        pytest.skip(f"no environment {case.environment}: python -m examples.cuda_and_fork.make_environments")
    return found


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python's own start method is another there")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_program_shows_what_is_documented(case: Case, python: Path, tmp_path: Path) -> None:
    seen = observe(case, python, STAND_IN, tmp_path / case.name)
    assert seen.facts() == EXPECTED[case.name].facts()
