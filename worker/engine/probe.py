"""What went wrong on the device, and whether it still computes. Health is proved by doing, not by asking."""

import torch


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was too small, on the device or, without one, in the machine; the process is sound."""
    refused = "can't allocate memory" in str(error)  # all that the CPU allocator's plain RuntimeError tells
    return refused or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def is_device_fault(error: Exception) -> bool:
    """Whether the device itself failed; CUDA then refuses everything until the process ends."""
    return isinstance(error, torch.AcceleratorError)


def can_compute() -> bool:
    """Allocate, multiply, wait and compare on the device."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        ones = torch.ones(64, 64, device=device)
        return bool((ones @ ones == 64).all().item())
    except RuntimeError:
        return False
