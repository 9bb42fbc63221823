"""handler.py, whose engine takes the time and meets the end that the prompt says, and draws nothing.

A prompt is, for example, "draw 0.2", "draw 2 encode 5", "draw 1 fail" or "draw 1 break": seconds, and what happens
after them; no more of them pass once there is the file that PACED_LET_GO names. Everything else is the real worker.
"""

import os
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image

STEP_S = 0.02

if __name__ != "__mp_main__":
    import handler
    import worker.engine.generate as generate
    import worker.runtime.failures as failures
    import worker.runtime.loaded_model as loaded_model
    from worker.engine.drawing import Item
    from worker.request import GeneratedImage

    ENDS: dict[str, Callable[[], Exception]] = {
        "fail": lambda: KeyError("a bug"),
        "break": lambda: torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700),
    }

    def pace(prompt: str) -> dict[str, float]:
        """What the prompt gives seconds to."""
        words = prompt.split()
        return {word: float(after) for word, after in pairwise(words) if after[0].isdigit()}

    def pause(seconds: float) -> None:
        """Sleep, unless the test has let go of what it kept waiting."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not os.path.exists(os.environ.get("PACED_LET_GO", "")):
            time.sleep(min(STEP_S, left))

    def draw_batch(_: Any, items: Sequence[Item]) -> list[GeneratedImage]:
        """Pictures of nothing, after their time."""
        (item,) = items
        prompt, steps = item.picture.prompt, max(1, round(pace(item.picture.prompt)["draw"] / STEP_S))
        item.job.begin_batch(1)
        for _step in range(steps):
            pause(STEP_S)
            item.job.steps.count(0, 1, SimpleNamespace(num_timesteps=steps), None)
        for word in prompt.split():
            if word in ENDS:
                raise ENDS[word]()
        return [GeneratedImage(item.picture, Image.new("RGB", item.job.plan.size), nsfw=False)]

    encode = loaded_model.encode

    def encode_slowly(image: Any, text: str, *rest: Any) -> Any:
        """The file, after its time."""
        pause(pace(text.partition("\n")[0]).get("encode", 0.0))
        return encode(image, text, *rest)

    generate.draw_batch = draw_batch
    loaded_model.encode = encode_slowly
    failures.self_test = lambda _: None

if __name__ == "__main__":
    handler.main()
