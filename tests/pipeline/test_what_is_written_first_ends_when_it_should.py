"""Before they draw, some models have a language model write: what the picture is made of, a better prompt, what a
picture shows. Nobody waits for that any more when a job is cancelled, or its time is over."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, ErnieImagePipeline
from transformers import Qwen3Config, Qwen3ForCausalLM

from tests.helpers import tiny_editors, tiny_flows, tiny_glm, tiny_models, tiny_readers
from tests.helpers.drawing import assert_same, scene, uri
from tests.helpers.faults import a_worker, engine_of
from tests.helpers.through_handler import ask, cancel_at, drawn
from worker.clock import CLOCK
from worker.runtime.worker import Worker

TIMEOUT_S = 600.0
AT = 3  # the token before which nobody wants the job any more
JOB: dict[str, Any] = {"prompt": "a boat", "width": 128, "height": 128, "num_inference_steps": 2, "seed": 7}


def _ernie() -> ErnieImagePipeline:
    """ERNIE-Image with the language model that writes its prompts anew, 40 tokens long."""
    made = tiny_flows.ernie()
    tokens = tiny_flows.letters(template="{% for m in messages %}{{ m.content }}{% endfor %}")
    tokens.model_max_length = 40
    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=len(tokens), num_hidden_layers=1, **tiny_flows.SMALL_TEXT)
    return ErnieImagePipeline(**{**made.components, "pe": Qwen3ForCausalLM(config), "pe_tokenizer": tokens})


def _talkative(make: Callable[[], Any]) -> DiffusionPipeline:
    """It writes as much as it may: with random weights the first token may well be the end."""
    made: DiffusionPipeline = make()
    made.text_encoder.generation_config.eos_token_id = None
    return made


@dataclass(frozen=True)
class Case:
    """A model, which of its parts writes, and what a job needs for that."""

    make: Callable[[], DiffusionPipeline]
    writer: str
    job: dict[str, Any]


CASES = {
    "glm-image": Case(tiny_glm.glm, "vision_language_encoder", {}),
    "glm-image, of a picture": Case(tiny_glm.glm, "vision_language_encoder", {"image": uri(scene())}),
    "ernie-image": Case(_ernie, "pe", {}),
    "longcat-image": Case(partial(_talkative, tiny_readers.longcat), "text_encoder", {}),
    "layered": Case(
        partial(_talkative, tiny_editors.qwen_layered),
        "text_encoder",
        {"image": uri(scene()), "prompt": "", "layers": 1},
    ),
}

pytestmark = pytest.mark.usefixtures("small_references")


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Worker]]:
    root = tmp_path_factory.mktemp("writers")
    with ExitStack() as stack:
        made = {}
        for name, case in CASES.items():
            folder = tiny_models.save(case.make(), root / name.partition(",")[0])
            made[name] = stack.enter_context(a_worker(MODEL_NAME=str(folder), JOB_TIMEOUT_S=f"{TIMEOUT_S:g}"))
        engine_of(made["longcat-image"]).pipeline.tokenizer_max_length = 64  # which it would write 512 tokens for
        yield made


@contextmanager
def at_a_token(worker: Worker, name: str, action: Callable[[], object]) -> Iterator[list[int]]:
    """The tokens that the writer computes, before one of which this is done; the transformer's passes are 0."""
    pipeline, calls = engine_of(worker).pipeline, list[int]()

    def count(*_: object) -> None:
        calls.append(len(calls) + 1)
        if calls[-1] == AT:
            action()

    with ExitStack() as stack:
        for part, note in ((CASES[name].writer, count), ("transformer", lambda *_: calls.append(0))):
            stack.callback(getattr(pipeline, part).register_forward_pre_hook(note).remove)
        yield calls


@pytest.mark.parametrize("name", CASES)
def test_a_cancel_ends_it_at_the_next_token(name: str, workers: dict[str, Worker]) -> None:
    worker, job = workers[name], {**JOB, **CASES[name].job}
    before = drawn(worker, job)

    calls = cancel_at(worker, job, lambda hold: at_a_token(worker, name, hold))

    assert len(calls) <= AT + 1 and 0 not in calls, "a token more, and nothing was drawn"
    assert_same(drawn(worker, job), before)


@pytest.mark.parametrize("name", CASES)
def test_a_deadline_ends_it_at_the_next_token(
    name: str, workers: dict[str, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, job = workers[name], {**JOB, **CASES[name].job}
    before, running_time, late = drawn(worker, job), CLOCK.running_time, [0.0]
    monkeypatch.setattr(CLOCK, "running_time", lambda: running_time() + late[0])

    with at_a_token(worker, name, lambda: late.append(late.pop() + TIMEOUT_S + 1)) as calls:
        answer = ask(worker, job)

    assert answer["code"] == "JOB_TIMEOUT", answer
    assert len(calls) <= AT + 1 and 0 not in calls, "a token more, and nothing was drawn"
    assert_same(drawn(worker, job), before)
