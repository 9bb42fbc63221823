"""How a job is asked and answered: in our own words, or in OpenAI's. What is drawn, and how, is the same."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from worker.api.capabilities_answer import tell_capabilities
from worker.api.endpoint import Endpoint
from worker.api.openai import is_openai, parse_openai
from worker.api.openai_answers import count_openai_bytes, list_models, write_openai_answer, write_openai_failure
from worker.api.parse import parse
from worker.api.response import Answer, count_bytes, write_answer, write_failure
from worker.errors import WorkerError
from worker.images.load import PictureRules
from worker.models.capabilities import Capabilities
from worker.output.options import OutputOptions, OutputRules
from worker.request import Request

Job = Mapping[str, Any]


@dataclass(frozen=True)
class Contract:
    """One way to ask and to answer.

    Attributes:
        parse: a job -> what is to be drawn, and how it is handed over.
        told: what `tell` tells.
        tell: the answer to a job that asks for no pictures but what there is; None for any other.
        write_answer, write_failure: the handler's return value.
        count_bytes: the size of what the SDK posts for an answer.
    """

    parse: Callable[[Job, Capabilities, PictureRules, OutputRules], tuple[Request, OutputOptions]]
    told: str
    tell: Callable[[Job, Endpoint], dict[str, Any] | None]
    write_answer: Callable[[Answer, OutputOptions], dict[str, Any]]
    write_failure: Callable[[WorkerError], dict[str, Any]]
    count_bytes: Callable[[Answer, OutputOptions], int]


OWN = Contract(
    parse,
    "capabilities",
    tell_capabilities,
    lambda answer, output: write_answer(answer),
    write_failure,
    lambda answer, output: count_bytes(answer),
)
OPENAI = Contract(parse_openai, "models", list_models, write_openai_answer, write_openai_failure, count_openai_bytes)


def choose_contract(job: Job) -> Contract:
    """How this job is asked, and so to be answered."""
    return OPENAI if is_openai(job) else OWN
