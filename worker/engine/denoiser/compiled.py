"""Passes compiled by torch.compile: nearly the same numbers from far fewer kernels, made beside the serving.

A compile takes from seconds to minutes and runs in a thread of this process, without a child that computes. Python
would share the interpreter between it and a drawing, and torch keeps part of a compile's state in globals that a
drawing would meet. So while something is drawn the compile stands still, at the next place where it can be left: a job
that comes meanwhile waits for that place, which is seconds off at most, and a job that is being drawn for nothing.
"""

import copy
import functools
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from worker.engine.denoiser.cuda_graphs import Arguments, Work
from worker.engine.denoiser.projections import join_projections
from worker.environment import keep_compiled_code

log = logging.getLogger("worker")

LAUNCHER = Path(sys.prefix) / "triton-launcher.so"  # built with the image, by builder/build_launcher.py
MAX_KERNELS_AT_ONCE = 8  # that are made; more share Python's lock for longer than they gain
PATIENCE_S = 0.1  # between looks at whether something wants to be drawn
MAX_RECOMPILES = 64  # of one function in torch; each shape is one


class Left(Exception):
    """A compile that nobody waits for any more."""


class Floor:
    """Who works: drawings whenever they want to, the compiler whenever none does."""

    def __init__(self) -> None:
        """Nobody works."""
        self._change = threading.Condition()
        self._drawings = 0
        self._compiling = False
        self.closed = False

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Inside the `with` nothing is compiled."""
        with self._change:
            self._drawings += 1
            self._change.wait_for(lambda: not self._compiling)
        try:
            yield
        finally:
            with self._change:
                self._drawings -= 1
                self._change.notify_all()

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Inside the `with` nothing is drawn, but for what `stand_still` lets pass."""
        self._take()
        try:
            yield
        finally:
            self._give()

    def stand_still(self) -> None:
        """While something wants to be drawn; by the thread that compiles, where nothing is half done.

        Raises:
            Left: the floor is closed.
        """
        if self.closed:
            raise Left
        if not self._drawings:
            return
        was_compiling, torch.compiler._is_compiling_flag = torch.compiler._is_compiling_flag, False
        self._give()
        self._take()
        torch.compiler._is_compiling_flag = was_compiling

    def wait_until_nothing_is_drawn(self) -> None:
        """By a thread that helps the one which compiles, before it begins anything."""
        with self._change:
            self._change.wait_for(lambda: not self._drawings)

    def _take(self) -> None:
        with self._change:
            self._change.wait_for(lambda: not self._drawings)
            self._compiling = True

    def _give(self) -> None:
        with self._change:
            self._compiling = False
            self._change.notify_all()


class TorchCompiler:
    """Compiles what it is given, one after the other."""

    def __init__(self, cache: Path | None, backend: str | Callable[..., Any] = "inductor") -> None:
        """Nothing is compiled yet.

        Args:
            cache: where compiled code is kept for later processes; None for nowhere.
            backend: of torch.compile.
        """
        self._floor = Floor()
        self._cache, self._backend = cache, backend
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compile")
        self._kernels = ThreadPoolExecutor(choose_threads(), thread_name_prefix="kernel")
        self._prepared = False
        self._stance = threading.Lock()  # of torch, one for the process

    def submit(self, work: Work, arguments: Arguments) -> "Future[Callable[..., Any]]":
        """The work's function, compiled for such arguments; it has run once."""
        return self._thread.submit(self._compile, work, arguments)

    def standing_still(self) -> AbstractContextManager[None]:
        """As `Compiler`."""
        return self._floor.drawing()

    def close(self) -> None:
        """Leave what is under way where it can be left, and begin nothing more."""
        self._floor.closed = True
        for pool in (self._thread, self._kernels):
            pool.shutdown(cancel_futures=True)

    def _compile(self, work: Work, arguments: Arguments) -> Callable[..., Any]:
        with self._floor.compiling():
            if not self._prepared:
                self._prepare()
            started = time.perf_counter()
            try:
                compiled = self._run_compiled(work, arguments)
                log.info("compiled the %s in %.1f s", work.name, time.perf_counter() - started)
                return compiled
            except Exception as error:
                if self._cache is None or self._floor.closed:
                    raise
                log.warning(
                    "compiling without %s, which may be damaged: %s", self._cache, str(error).partition("\n")[0]
                )
            self._use_cache(None)
            return self._run_compiled(work, arguments)

    @torch.no_grad()
    def _run_compiled(self, work: Work, arguments: Arguments) -> Callable[..., Any]:
        compiled = self._prepare_forward(work)
        with _on_device_of(arguments):
            compiled(*arguments.given, **arguments.named)
            if torch.cuda.is_available():
                torch.cuda.synchronize()

        def run(*given: Any, **named: Any) -> Any:
            with self._stance, torch.compiler.set_stance("eager_on_recompile"):  # whoever draws never compiles
                return compiled(*given, **named)

        return run

    def _prepare_forward(self, work: Work) -> Callable[..., Any]:
        """What is compiled when it is called: the whole of a UNet, of a transformer the blocks that it repeats."""
        if hasattr(work.module, "down_blocks"):  # of a ControlNet, too, which is half a UNet
            unet = share_weights(work.module)  # adapters that come meanwhile change the other one's layers
            join_projections(unet)
            return torch.compile(unet.forward, backend=self._backend, dynamic=False)
        if getattr(work.module, "_repeated_blocks", None):
            twin: Any = share_weights(work.module)
            twin.compile_repeated_blocks(backend=self._backend, dynamic=False)
            return twin.forward  # type: ignore[no-any-return]
        return torch.compile(work.forward, backend=self._backend, dynamic=False)

    def _prepare(self) -> None:
        """In the thread that compiles: what torch is told, and where it can be left."""
        self._prepared = True
        import torch._dynamo.symbolic_convert
        import torch._inductor.async_compile
        import torch._inductor.config
        import torch._inductor.graph
        import torch._inductor.scheduler

        torch._inductor.config.compile_threads = 1  # more would be child processes
        torch._inductor.config.conv_1x1_as_mm = True
        torch._dynamo.config.recompile_limit = MAX_RECOMPILES
        torch._dynamo.config.accumulated_recompile_limit = 8 * MAX_RECOMPILES
        self._use_cache(self._cache)
        _use_launcher()
        self._leave_at(torch._dynamo.symbolic_convert.InstructionTranslatorBase, "step")
        self._leave_at(torch._inductor.graph.GraphLowering, "run_node")
        self._leave_at(torch._inductor.scheduler.Scheduler, "can_fuse")
        self._share_out_kernels(torch._inductor.async_compile.AsyncCompile)

    def _leave_at(self, kind: type, name: str) -> None:
        """A call of this method is a place where the compile can stand still."""
        method, thread, floor = getattr(kind, name), threading.current_thread(), self._floor

        @functools.wraps(method)
        def leaving(*given: Any, **named: Any) -> Any:
            if threading.current_thread() is thread:
                floor.stand_still()
            return method(*given, **named)

        setattr(kind, name, leaving)

    def _share_out_kernels(self, kind: type) -> None:
        """Have several kernels made at once, by threads; most of that is done where Python needs no lock.

        Inductor would ask child processes, forked ones or of another Python, and has no such threads.
        """
        make, wait, thread, floor = kind.triton, kind.wait, threading.current_thread(), self._floor  # type: ignore[attr-defined]

        def make_when_nothing_is_drawn(*given: Any, **named: Any) -> Any:
            floor.wait_until_nothing_is_drawn()
            return make(*given, **named)

        @functools.wraps(make)
        def share_out(*given: Any, **named: Any) -> Any:
            if threading.current_thread() is not thread:
                return make(*given, **named)
            floor.stand_still()
            return self._kernels.submit(make_when_nothing_is_drawn, *given, **named)

        @functools.wraps(wait)
        def wait_for_all(self: Any, scope: dict[str, Any]) -> None:
            for name, value in scope.items():
                if isinstance(value, Future):
                    while not value.done():
                        floor.stand_still()
                        futures.wait([value], timeout=PATIENCE_S)
                    scope[name] = value.result()
            wait(self, scope)

        kind.triton, kind.wait = share_out, wait_for_all  # type: ignore[attr-defined]

    def _use_cache(self, folder: Path | None) -> None:
        """Keep compiled code there, and find it there."""
        from torch._inductor.utils import clear_caches

        self._cache = folder
        keep_compiled_code(folder or Path(tempfile.mkdtemp(prefix="compiled-")))
        clear_caches()


def _on_device_of(arguments: Arguments) -> AbstractContextManager[Any]:
    """Inside the `with` their GPU is the current one, if they are on one."""
    there = [tensor.device for tensor in arguments.tensors if tensor.is_cuda]
    return torch.cuda.device(there[0]) if there else nullcontext()


def choose_threads() -> int:
    """For as many kernels at once."""
    return min(MAX_KERNELS_AT_ONCE, len(os.sched_getaffinity(0)))


def _use_launcher() -> None:
    """Spare Triton the C compiler with which it would build its launcher, where that was built before."""
    if LAUNCHER.is_file():
        import triton

        triton.knobs.build.impl = lambda *_: str(LAUNCHER)


def share_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Another such module around the same weights, with the forward of its class."""
    weights = {id(weight): weight for weight in (*module.parameters(), *module.buffers())}
    twin = copy.deepcopy(module, weights)
    twin.__dict__.pop("forward", None)
    return twin
