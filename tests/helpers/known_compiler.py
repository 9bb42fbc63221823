"""A compiler whose results are known to be good or bad, and there at once."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from worker.engine.denoiser.cuda_graphs import Arguments, Work


class KnownCompiler:
    """Compiles at once, into what is known.

    Attributes:
        changes: what is done to results, in place of compiling; None where compiling fails.
        works: what was to be compiled.
    """

    def __init__(self, changes: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
        self.changes = changes
        self.works: list[Work] = []

    def submit(self, work: Work, arguments: Arguments) -> "Future[Callable[..., Any]]":
        self.works.append(work)
        result: Future[Callable[..., Any]] = Future()
        changes = self.changes
        if changes is None:
            result.set_exception(RuntimeError("no such kernel"))
            return result

        def compiled(*given: Any, **named: Any) -> Any:
            found = work.forward(*given, **named)
            return changes(found) if isinstance(found, torch.Tensor) else (changes(found[0]), *found[1:])

        result.set_result(compiled)
        return result

    def standing_still(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        """Nothing is under way."""
