"""What an exception says of the device: out of memory, or broken."""

import torch

from worker.text import read_text


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was too small, on the device or, without one, in the machine; the process is sound."""
    refused = "can't allocate memory" in read_text(error)  # all that the CPU allocator's plain RuntimeError tells
    return refused or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def is_device_fault(error: Exception) -> bool:
    """Whether the device itself failed; CUDA then refuses everything until the process ends."""
    return isinstance(error, torch.AcceleratorError)
