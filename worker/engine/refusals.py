"""What a model has been seen to fail at: which of its parts a request puts together, never what it draws with them."""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock

from worker.errors import InvalidInputError
from worker.request import Request

MAX_REFUSALS = 1_000  # remembered


class Refusals:
    """Combinations that cannot be drawn, each with the sentence that says so."""

    def __init__(self) -> None:
        """Nothing has failed yet."""
        self._problems: OrderedDict[Hashable, str] = OrderedDict()
        self._lock = Lock()

    def remember(self, request: Request, problem: str) -> None:
        """Refuse requests for the same from now on."""
        with self._lock:
            self._problems[_combination(request)] = problem
            while len(self._problems) > MAX_REFUSALS:
                self._problems.popitem(last=False)

    def clear(self) -> None:
        """Forget all that has failed."""
        with self._lock:
            self._problems.clear()

    def check(self, request: Request) -> None:
        """Look whether this is known to fail.

        Raises:
            InvalidInputError: it is.
        """
        with self._lock:
            problem = self._problems.get(_combination(request))
        if problem is not None:
            raise InvalidInputError([problem])


def _combination(request: Request) -> Hashable:
    hires, refinement = request.hires, request.refinement
    return (
        request.task,
        len(request.references),
        tuple((one.name, one.mode) for one in request.controls),
        request.image_prompt is not None,
        tuple(one.name for one in request.loras),
        hires and hires.latent,
        refinement and refinement.high_noise_frac is None,
        request.clip_skip,
        request.guidance_rescale is not None,
        request.true_cfg_scale is not None,
        request.image_guidance_scale is not None,
        request.max_sequence_length is not None,
        request.scheduler.name,
        request.preview,
    )
