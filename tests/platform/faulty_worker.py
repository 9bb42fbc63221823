"""handler.py, whose model fails as a broken accelerator makes it fail, when the prompt says so.

The fault is injected where the real one appears, in the UNet's forward pass; everything else is the real worker.
"""

from typing import Any

import torch

if __name__ != "__mp_main__":
    import handler
    from worker.engine.prompts.encode import PromptEncoder

    encode = PromptEncoder.encode
    faults: list[Exception] = []
    seen: set[str] = set()

    def remember_fault(encoder: PromptEncoder, pipeline: Any, prompt: str, *number: int) -> Any:
        if prompt == "illegal memory access":
            faults.append(torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700))
        if prompt == "out of memory":
            faults.append(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"))
        if prompt == "out of memory once" and prompt not in seen:
            faults.append(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"))
        seen.add(prompt)
        if prompt == "a bug":
            faults.append(KeyError("secret detail"))
        return encode(encoder, pipeline, prompt, *number)

    def fail(*_: object) -> None:
        if faults:
            raise faults.pop()

    PromptEncoder.encode = remember_fault  # type: ignore[method-assign]
    handler.WORKER.model.engine.pipeline.unet.register_forward_pre_hook(fail)

if __name__ == "__main__":
    handler.main()
