"""What language models write before a picture is drawn: between one token and the next, whether it is still wanted."""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Writing:
    """Of one engine: GLM-Image writes what a picture is made of, others a better prompt, or what a picture shows."""

    def __init__(self, parts: Iterable[torch.nn.Module]) -> None:
        """Have those of these parts that write be asked at each token; each part of one engine alone."""
        self._check: Callable[[], None] = _go_on
        for part in parts:
            if callable(generate := getattr(part, "generate", None)):
                part.generate = self._watch(generate)  # type: ignore[assignment]

    @contextmanager
    def asking(self, check: Callable[[], None]) -> Iterator[None]:
        """Inside the `with`, this is called at each token; what it raises ends the writing, and comes out of it."""
        self._check = check
        try:
            yield
        finally:
            self._check = _go_on

    def _watch(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(generate)
        def write(*given: Any, **named: Any) -> Any:
            from transformers import StoppingCriteriaList  # most models write nothing

            others = named.pop("stopping_criteria", None) or []
            return generate(*given, stopping_criteria=StoppingCriteriaList([*others, self._ask]), **named)

        return write

    def _ask(self, tokens: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """None of the texts is to end because of this."""
        self._check()
        return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)


def _go_on() -> None:
    """Nobody is asked."""
