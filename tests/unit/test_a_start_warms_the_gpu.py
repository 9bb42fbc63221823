"""While Python imports, a GPU computes a little of all that pictures need; the start goes on, whatever comes of it."""

import threading

import pytest
import torch

from worker.engine import warm_device

CPU = torch.device("cpu")


@pytest.fixture
def warmed(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The devices that were warmed, on a machine with a GPU."""
    devices: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(warm_device, "warm", devices.append)
    return devices


def begin() -> None:
    warm_device.begin_to_warm()
    for thread in threading.enumerate():
        if thread.name == "warm-device":
            thread.join()


def test_the_first_gpu_is_warmed(warmed: list[torch.device]) -> None:
    begin()
    assert warmed == [torch.device("cuda", 0)]


@pytest.mark.parametrize(("name", "value"), [("WARM_UP", "off"), ("DTYPE", "int3")])
def test_nothing_is_warmed_where_the_owner_says_so_or_nothing_will_load(
    name: str, value: str, warmed: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    begin()
    assert warmed == []


def test_nothing_is_warmed_without_a_gpu(warmed: list[torch.device], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    begin()
    assert warmed == []


def test_a_device_that_computes_nothing_keeps_nobody_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.dtype] = []

    def refuse(device: torch.device, dtype: torch.dtype) -> None:
        asked.append(dtype)
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(warm_device, "compute", refuse)
    warm_device.warm(CPU)
    assert asked


def test_what_is_computed_needs_no_gpu_of_its_own_kind() -> None:
    result = warm_device.compute(CPU, torch.bfloat16)
    assert (result.dtype, tuple(result.shape)) == (torch.bfloat16, (1, 320, 128, 128))
