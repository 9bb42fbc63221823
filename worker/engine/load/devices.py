"""GPUS -> the devices to compute on; an engine is loaded for each."""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from worker.errors import SettingsError
from worker.settings import Settings

log = logging.getLogger("worker")


def choose_devices(settings: Settings) -> list[torch.device]:
    """The devices; the reason is logged.

    Raises:
        SettingsError: fewer are there than the settings want.
    """
    there, wanted = torch.cuda.device_count() if torch.cuda.is_available() else 0, settings.gpus_at_most
    if not there:
        number = wanted or 1
        log.info("device %s: no CUDA device was found", " and ".join(["cpu"] * number))
        return [torch.device("cpu")] * number
    if wanted is not None and wanted > there:
        raise SettingsError(f"GPUS: got {wanted}; this worker has {there}")
    devices = [torch.device("cuda", number) for number in range(wanted or there)]
    names = [f"{device} ({torch.cuda.get_device_name(device)})" for device in devices]
    log.info("device %s: %s", ", ".join(names), "all that are there" if wanted is None else "GPUS says so")
    return devices


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Inside the `with` it is CUDA's current device in this thread: some kernels ask for no other."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
