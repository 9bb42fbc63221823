"""Every command in every document can be run: its targets, modules, options, files and variables are there."""

import functools
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise

import pytest
from pydantic import AliasChoices
from runpod.serverless import parser as sdk_options

from tests.helpers.documents import ROOT, Document, list_documents
from worker.settings import Settings, read_settings

DOCUMENTS = list_documents()
NAMES = [document.name for document in DOCUMENTS]
MAKEFILE, DOCKERFILE = ((ROOT / name).read_text() for name in ("Makefile", "Dockerfile"))
# What a reader has from elsewhere.
PROGRAMS = {"apt-get", "base64", "cd", "curl", "docker", "export", "git", "jq", "node", "npm", "npx", "source"}
ENDS = {"|", "&&", "||", ";", "&"}
REDIRECTIONS = {">", "<", ">>", "2>"}
SECRET = re.compile(r"{{ RUNPOD_SECRET_\w+ }}")  # what RunPod replaces before a worker starts
# Variable -> who reads it, of those that are not the worker's own.
VARIABLES = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "huggingface_hub",
    "HF_HUB_OFFLINE": "huggingface_hub",
    "HF_XET_HIGH_PERFORMANCE": "hf_xet",
    "OMP_NUM_THREADS": "OpenMP",
    "OMP_WAIT_POLICY": "OpenMP",
    "PIP_FIND_LINKS": "pip",
    "PIP_NO_INDEX": "pip",
    "PYTHONOPTIMIZE": "Python",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "torch",
    "RUNPOD_ENDPOINT_BASE_URL": "RunPod's client",
}
BUCKET = {f"BUCKET_{part}": "x" for part in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
BUCKET["BUCKET_ENDPOINT_URL"] = "https://s3.example.com"
_ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]+)=(.*)", re.DOTALL)
_PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*/?")


def find_problems(document: Document) -> Iterator[str]:
    """What of its commands does not exist, one sentence each."""
    for line in document.command_lines():
        for command in split_commands(line):
            yield from (f"`{line.strip()}`: {problem}" for problem in judge(command))
            if is_unknown(command):
                yield f"`{line.strip()}`: unknown program {command[0]}"
    for code in document.inline():
        for command in split_commands(code):
            yield from (f"`{code}`: {problem}" for problem in judge(command))


def split_commands(line: str) -> Iterator[list[str]]:
    """The words of each command in a line, without redirections; nothing for code that is no command."""
    try:
        words = shlex.split(SECRET.sub("secret", line), comments=True)
    except ValueError:
        return
    command: list[str] = []
    for before, word in pairwise(["", *words, ";"]):
        if word in ENDS:
            if command:
                yield command
            command = []
        elif not {before, word} & REDIRECTIONS:
            command.append(word)


def is_unknown(words: list[str]) -> bool:
    """Whether it starts a program that nobody is known to have."""
    left = [word for word in words if not _ASSIGNMENT.fullmatch(word)]
    return bool(left) and not (find_program(left[0]) in JUDGES or left[0] in PROGRAMS)


def find_program(word: str) -> str:
    """The name of a program, wherever it is."""
    return word.removeprefix(".venv/bin/")


def judge(words: list[str]) -> Iterator[str]:
    """What is wrong with one command; nothing with code that is none."""
    while words and (match := _ASSIGNMENT.fullmatch(words[0])):
        if match[1] not in list_variables():
            yield f"nothing reads {match[1]}"
        words = words[1:]
    if len(words) > 1 and (judge_rest := JUDGES.get(find_program(words[0]))):
        yield from judge_rest(words[1:])


@functools.cache
def list_variables() -> set[str]:
    """The names of all variables that somebody reads."""
    aliases = [field.validation_alias for field in Settings.model_fields.values()]
    spelled = {str(one) for alias in aliases if isinstance(alias, AliasChoices) for one in alias.choices}
    return {*(name.upper() for name in Settings.model_fields), *spelled, *VARIABLES, *list_arguments()}


@functools.cache
def list_arguments() -> set[str]:
    """The build arguments of the image."""
    return {*re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE)}


def judge_make(words: list[str]) -> Iterator[str]:
    """Targets and variables of the Makefile."""
    for word in words:
        if match := _ASSIGNMENT.fullmatch(word):
            if not re.search(rf"\$\(\w* ?{match[1]}\b", MAKEFILE):
                yield f"the Makefile has no variable {match[1]}"
        elif not re.search(rf"^{re.escape(word)}:", MAKEFILE, re.MULTILINE):
            yield f"the Makefile has no target {word}"


def judge_python(words: list[str]) -> Iterator[str]:
    """A module or a script, and its options."""
    if words[0] == "-c":
        compile(words[1], "a document", "exec")
    elif words[0] == "-m":
        yield from judge_module(words[1], words[2:])
    elif not (ROOT / words[0]).is_file():
        yield f"no file {words[0]}"
    elif words[0] == "handler.py":
        known = sdk_options.format_help()
        yield from (f"no option {word}" for word in words[1:] if word.startswith("--") and word not in known)


def judge_module(name: str, words: list[str]) -> Iterator[str]:
    path = ROOT / name.replace(".", "/")
    if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
        if importlib.util.find_spec(name.partition(".")[0]) is None or (ROOT / name.partition(".")[0]).exists():
            yield f"no module {name}"
        return
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    yield from (f"{name} has no option {option}" for option in options if option not in read_help(name).split())


@functools.cache
def read_help(module: str) -> str:
    """What `--help` of a module prints, with nothing but blanks around options."""
    command = [sys.executable, "-m", module, "--help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout
    return re.sub(r"[\[\],|]", " ", told)


def judge_docker(words: list[str]) -> Iterator[str]:
    """Build arguments, secrets, files and the folder of a build."""
    for option, value in pairwise(words):
        if option == "--build-arg" and value.partition("=")[0] not in list_arguments():
            yield f"the Dockerfile has no argument {value.partition('=')[0]}"
        if option == "--secret" and value.partition(",")[0] not in DOCKERFILE:
            yield f"the Dockerfile has no secret {value}"
        if option in ("-f", "--file") and not (ROOT / value).is_file():
            yield f"no file {value}"


def judge_pip(words: list[str]) -> Iterator[str]:
    """Files of requirements."""
    named = [value for option, value in pairwise(words) if option == "-r"]
    yield from (f"no file {name}" for name in named if not (ROOT / name).is_file())


JUDGES = {"make": judge_make, "python": judge_python, "python3": judge_python, "pip": judge_pip, "docker": judge_docker}


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_command_can_be_run(document: Document) -> None:
    assert [*find_problems(document)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_value_that_a_setting_is_shown_with_is_taken(document: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    for check in ("exists", "check_folder"):  # volumes are not here
        monkeypatch.setattr(f"worker.settings.{check}", lambda path: True)
    lines = [*document.command_lines(), *document.inline()]
    shown = [match for line in lines if (match := _ASSIGNMENT.fullmatch(line.strip()))]
    settings = [(match[1], match[2]) for match in shown if match[1].lower() in Settings.model_fields]
    for name, value in settings:
        if "..." not in value:
            with monkeypatch.context() as patch:
                filled = SECRET.sub("secret", value)
                for key, one in {**BUCKET, name: filled}.items():
                    patch.setenv(key, one)
                assert getattr(read_settings(), name.lower()) is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_file_that_is_named_is_there(document: Document) -> None:
    folders = list_folders()
    codes = [*document.inline(), *(word for line in document.command_lines() for word in line.split())]
    paths = {code for code in codes if _PATH.fullmatch(code) and code.partition("/")[0] in folders}
    tests = {code for code in codes if re.fullmatch(r"test_\w+\.py", code)}
    assert {path for path in paths if not (ROOT / path).exists()} == set()
    assert {name for name in tests if not [*(ROOT / "tests").rglob(name)]} == set()


@functools.cache
def list_folders() -> set[str]:
    """The folders at the top of the repository."""
    told = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {line.partition("/")[0] for line in told.splitlines() if "/" in line}


def test_every_option_of_the_local_endpoint_is_one() -> None:
    (page,) = (document for document in DOCUMENTS if document.name == "docs/local-endpoint.md")
    shown = {code.split()[0] for code in page.inline() if code.startswith("--")}
    assert shown and shown <= {*read_help("local_endpoint").split()}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("make nothing", "no target nothing"),
        ("make soak JOB=3", "no variable JOB"),
        ("python -m tools.nothing", "no module tools.nothing"),
        ("python -m tools.hub --icons", "has no option --icons"),
        ("python handler.py --test_inputs x", "no option --test_inputs"),
        ("python nothing.py", "no file nothing.py"),
        ("pip install -r nothing.txt", "no file nothing.txt"),
        ("docker build --build-arg MODEL=x .", "no argument MODEL"),
        ("docker build --secret id=TOKEN,env=X .", "no secret"),
        ("QUANTISE=8bit make run", "nothing reads QUANTISE"),
        ("ls | make nothing", "no target nothing"),
    ],
)
def test_a_command_that_cannot_be_run_is_noticed(line: str, problem: str) -> None:
    told = [one for command in split_commands(line) for one in judge(command)]
    assert len(told) == 1 and problem in told[0]
