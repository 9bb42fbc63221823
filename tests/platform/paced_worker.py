"""handler.py, whose engine takes the time and meets the end that the prompt says, and draws nothing.

A prompt is, for example, "draw 0.2", "draw 2 encode 5", "draw 1 fail" or "draw 1 break": seconds, and what happens
after them. Everything else is the real worker.
"""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from PIL import Image

STEP_S = 0.02

if __name__ != "__mp_main__":
    import handler
    import worker.runtime.worker as runtime
    from worker.clock import CLOCK
    from worker.errors import JobTimeoutError
    from worker.plan import Plan
    from worker.request import GeneratedImage

    ENDS: dict[str, Callable[[], Exception]] = {
        "fail": lambda: KeyError("a bug"),
        "break": lambda: torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700),
    }

    def pace(prompt: str) -> dict[str, float]:
        """What the prompt gives seconds to."""
        words = prompt.split()
        return {word: float(after) for word, after in pairwise(words) if after[0].isdigit()}

    def generate(_: Any, plan: Plan, on_step: Any, deadline: float | None, meter: Any) -> Iterator[GeneratedImage]:
        """Pictures of nothing, each after its time."""
        for picture in plan.request.pictures:
            steps = max(1, round(pace(picture.prompt)["draw"] / STEP_S))
            for step in range(steps):
                time.sleep(STEP_S)
                if deadline is not None and CLOCK.running_time() > deadline:
                    raise JobTimeoutError("too late")
                on_step(step + 1, steps, None)
            for word in picture.prompt.split():
                if word in ENDS:
                    raise ENDS[word]()
            yield GeneratedImage(picture, Image.new("RGB", plan.size), nsfw=False)

    encode = runtime.encode

    def encode_slowly(image: Any, text: str, *rest: Any) -> Any:
        """The file, after its time."""
        time.sleep(pace(text.partition("\n")[0]).get("encode", 0.0))
        return encode(image, text, *rest)

    runtime.generate = generate  # type: ignore[assignment]
    runtime.encode = encode_slowly
    runtime.self_test = lambda _: None

if __name__ == "__main__":
    handler.main()
