"""Packages that libraries import and this worker has no use for, or none yet: a start need not wait for them.

Libraries import whatever is installed. What these settings have no use for is hidden from them. Other packages wait
until somebody uses them: diffusers and transformers import torch's compiler for three decorators, which change nothing
until something is compiled, and with it comes a fifth of all modules; diffusers' schedulers import scipy.integrate for
LMS and scipy.stats for the one kind of sigmas that is a beta distribution's, and transformers scipy.optimize for losses
of training. RunPod's SDK imports py-cpuinfo for the CPU's name, which starts a Python of its own and takes a second.
"""

import sys
import threading
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

CPUS = Path("/proc/cpuinfo")


def _load(package: str) -> Any:
    module: Any = sys.modules[package]
    module.load()
    return module


class _EvalFrame:
    """The compiler's module that diffusers asks whether a model was compiled."""

    class OptimizedModule:
        """What was compiled: nothing, before anything can be."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_load("torch._dynamo").eval_frame, name)


def _mark(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator of the compiler's, with arguments or without, as long as nothing is compiled."""
    return function if function is not None else lambda marked: marked


def _read_cpu() -> dict[str, str]:
    """Of what py-cpuinfo tells, what the SDK asks for; without it, the SDK says that it could not tell."""
    try:
        lines = CPUS.read_text().splitlines()
    except OSError:
        return {}
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"brand_raw": names[0]} if names else {}


def _assign(*given: Any, **named: Any) -> Any:
    """What losses of transformers call of scipy, which is loaded then."""
    return _load("scipy.optimize").linear_sum_assignment(*given, **named)


@dataclass(frozen=True)
class Deferral:
    """What of a package can be had before it is loaded.

    Attributes:
        names: of its own.
        modules: in it, that need nothing of it.
    """

    names: Mapping[str, Any] = field(default_factory=dict)
    modules: frozenset[str] = frozenset()


DEFERRED: Mapping[str, Deferral] = {
    "torch._dynamo": Deferral(
        {"allow_in_graph": _mark, "assume_constant_result": _mark, "disable": _mark, "eval_frame": _EvalFrame()},
        frozenset({"torch._dynamo._trace_wrapped_higher_order_op"}),
    ),
    "scipy.integrate": Deferral(),
    "scipy.stats": Deferral(),
    "scipy.optimize": Deferral({"linear_sum_assignment": _assign}),
    "cpuinfo": Deferral({"get_cpu_info": _read_cpu}),
}


def spare_imports(unused: Iterable[str], needed: Iterable[str] = ()) -> None:
    """Hide packages, and let others wait; to be called before any library is imported.

    Args:
        unused: those that are hidden.
        needed: those that do not wait, for what they mark will be asked for.
    """
    sys.modules.update(dict.fromkeys(set(unused) - set(sys.modules)))  # type: ignore[arg-type]
    sys.meta_path.insert(0, _Finder(DEFERRED.keys() - set(needed)))


class _Finder(MetaPathFinder):
    def __init__(self, deferred: Set[str]) -> None:
        self._deferred = deferred

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package = sys.modules.get(name.rpartition(".")[0])
        if isinstance(package, _Deferred) and name not in DEFERRED[package.__name__].modules:
            package.load()
        spec = PathFinder.find_spec(name, path) if name in self._deferred else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Not yet."""


class _Deferred(ModuleType):
    """A package whose own file runs when something is asked of it that is not there."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._lock = threading.RLock()
        self._loaded = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        stand_ins = DEFERRED[self.__name__].names
        if name in stand_ins and not self._loaded:
            return stand_ins[name]
        self.load()
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None

    def load(self) -> None:
        """Run the package's own file, once; what it asks of itself meanwhile is there or not, as ever."""
        with self._lock:  # another thread may be at it
            if self._loaded:
                return
            self._loaded = True
            loader: Any = self.__spec__.loader if self.__spec__ else None
            try:
                loader.real.exec_module(self)
            except BaseException:
                self._loaded = False
                raise
