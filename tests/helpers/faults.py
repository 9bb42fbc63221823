"""Faults put in where the real ones appear, deep inside the model's own modules, and a worker for them to happen to."""

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.drawing import SMALL
from tests.helpers.tiny_addons import denoiser
from worker.engine.engine import Engine
from worker.runtime.gate import Gate
from worker.runtime.worker import Worker
from worker.settings import Settings

Answer = dict[str, Any]


def last_layer(engine: Engine, place: str) -> torch.nn.Module:
    """Where many tensors are alive: the last layer of the text encoder, the denoiser, the decoder or the encoder.

    The engine knows no prompt any more, so that each of them is called.
    """
    engine.embeddings.clear()
    pipeline = engine.pipeline
    part: Any = {
        "text encoder": lambda: pipeline.text_encoder,
        "denoiser": lambda: denoiser(pipeline),
        "decoder": lambda: pipeline.vae.decoder,
        "encoder": lambda: pipeline.vae.encoder,
    }[place]()
    last = ("final_layer_norm", "conv_out", "proj_out")
    return [one for name, one in part.named_modules() if name.endswith(last)][-1]


class Fault:
    """What happens at some calls of a layer.

    Attributes:
        calls: how often the layer was called.
        happened: how often the fault was there.
    """

    def __init__(self, wanted: Callable[[int], bool]) -> None:
        """Not happened yet; `wanted` says at which calls, from 1, it does."""
        self._wanted = wanted
        self.calls = self.happened = 0

    def now(self) -> bool:
        """Whether it happens at this call."""
        self.calls += 1
        self.happened += self._wanted(self.calls)
        return self._wanted(self.calls)


@contextmanager
def raising(layer: torch.nn.Module, error: Callable[[], BaseException], at: int = 1, times: int = 1) -> Iterator[Fault]:
    """From its call number `at` on, and for so many calls, the layer raises instead of computing."""
    fault = Fault(lambda call: at <= call < at + times)

    def fail(*_: object) -> None:
        if fault.now():
            raise error()

    handle = layer.register_forward_pre_hook(fail)
    try:
        yield fault
    finally:
        handle.remove()


@contextmanager
def giving(layer: torch.nn.Module, number: float, wanted: Callable[[int, Any], bool]) -> Iterator[Fault]:
    """The layer gives one such number among its own, at the calls (number, output) that `wanted` picks."""
    fault = Fault(lambda call: wanted(call, outputs[-1]))
    outputs: list[Any] = []

    def spoil(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        outputs[:] = [output]
        spoilt = output.clone()
        if fault.now():
            spoilt[(0,) * spoilt.ndim] = number
        outputs.clear()
        return spoilt

    handle = layer.register_forward_hook(spoil)
    try:
        yield fault
    finally:
        handle.remove()


@contextmanager
def overflowing(layer: torch.nn.Module, wanted: Callable[[int], bool] = lambda _: True) -> Iterator[Fault]:
    """At those calls the layer's weights are so large that its output is too large for float16, but not for float32.

    A normalisation after it makes the same of both, as in Stable Diffusion XL's VAE: float32 draws the right picture.
    """
    fault = Fault(wanted)
    largest = max(float(weight.detach().abs().max()) for weight in layer.parameters())
    power = 2.0 ** math.floor(math.log2(30_000 / largest))  # of two, or going back would round

    def scale(factor: float) -> None:
        for weight in layer.parameters():
            weight.data.mul_(factor)

    handles = [
        layer.register_forward_pre_hook(lambda *_: scale(power) if fault.now() else None),
        layer.register_forward_hook(lambda *_: scale(1 / power) if wanted(fault.calls) else None),
    ]
    try:
        yield fault
    finally:
        for handle in handles:
            handle.remove()


def state(engine: Engine) -> list[Any]:
    """Number format, device and shape of every parameter and buffer, and what jobs attach to a denoiser."""
    found: list[Any] = []
    for part in engine.pipeline.components.values():
        for name, one in part.named_modules() if isinstance(part, torch.nn.Module) else ():
            for held in (one._parameters, one._buffers):
                tensors = ((key, it) for key, it in held.items() if it is not None)
                found += [(name, key, it.dtype, it.device.type, it.shape) for key, it in tensors]
            if hasattr(type(one), "disable_adapters"):
                found.append((name, one.disable_adapters))
    net: Any = denoiser(engine.pipeline)
    found += [(name, type(one).__name__) for name, one in net.named_modules()]
    found += [(name, type(one).__name__) for name, one in net.attn_processors.items()]
    found += [getattr(engine.pipeline.vae, "use_tiling", None), engine.pipeline.vae.training]
    return found


class _Forgetful(logging.Handler):
    """After the worker's own handler: pytest keeps every record, and with it the exception."""

    def emit(self, record: logging.LogRecord) -> None:
        record.exc_info = None


@contextmanager
def a_worker(**environment: str) -> Iterator[Worker]:
    """A worker with exactly these settings; the log is as it was before, afterwards."""
    log = logging.getLogger("worker")
    before = list(log.handlers), log.level, log.propagate
    known = {name.upper() for name in Settings.model_fields} | {"HF_AUTH_TOKEN", "RUNPOD_WEBHOOK_GET_JOB"}
    with pytest.MonkeyPatch.context() as patch:
        for name in known & set(os.environ):
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            worker = Worker()
            assert worker.failure is None, worker.failure
            log.addHandler(_Forgetful())
            yield worker
            worker.close()  # the drawing thread has workspaces on the GPU
        finally:
            log.handlers, log.level, log.propagate = before
            log.setLevel(before[1])


@contextmanager
def a_worker_each(folders: Mapping[str, Path]) -> Iterator[dict[str, Worker]]:
    """One for each of these models, by its name."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(a_worker(MODEL_NAME=str(folder))) for name, folder in folders.items()}


@contextmanager
def as_if_fresh(worker: Worker) -> Iterator[Worker]:
    """It with an open gate; afterwards, what a device fault has left behind and what it refuses since is gone."""
    worker.gate = Gate()
    try:
        yield worker
    finally:
        engine_of(worker).repair()
        engine_of(worker).refusals.clear()


def run(worker: Worker, **fields: Any) -> Answer:
    """The answer to a job with these fields; what is not given is small."""
    return worker.handle({"id": "test", "input": {**SMALL, **fields}})


def engine_of(worker: Worker) -> Engine:
    """The worker's engine."""
    return worker.model.engine


def is_open(worker: Worker) -> bool:
    """Whether the gate lets another job in; else the process ends with code 1 once its results are sent."""
    return not worker.gate.broken
