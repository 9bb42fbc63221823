"""The places that call a denoiser (a UNet or a diffusion transformer), a ControlNet, a VAE's decoder.

The boundary is one forward pass. Inside it: what the pipeline hands to the denoiser (the scaled latents, doubled for
guidance; the timestep; embeddings; the residuals of ControlNets) and the prediction that comes back. Outside it: the
scheduler's step, combining the two halves of guidance, text encoders. What runs inside may be anything that computes
the same function of the same inputs: the pass as diffusers wrote it, a graph of it, or what was compiled for it.

A copy of the module would still run this one's weights: each engine builds its own.

Whatever changes that function from outside says so: weights that are moved or cast, adapters that are attached or
taken off.
"""

import copy
import functools
from typing import Any

import torch
from torch import Tensor

from worker.engine.denoiser.cuda_graphs import Work
from worker.engine.denoiser.graphs import Graphs

_PICTURES = 3  # decoded before it is worth compiling


class PassRunner:
    """Runs one module's forward passes; in place of its `forward` as soon as the runner exists.

    Attributes:
        version: counts what has changed the module; while it stays, the module computes the same function.
        adapters: counts how often any were loaded or taken off.
        work: what its passes do.
        graphs: of the engine; None where every pass runs as it is written.
    """

    def __init__(self, name: str, module: torch.nn.Module, often: int = 16, draws: bool = False) -> None:
        """Take the place of the module's forward; to be called before any hook that moves weights is installed.

        Args:
            name: for the log.
            often: passes of one kind after which they are worth compiling.
            draws: as of `Work`.
        """
        self.version = self.adapters = 0
        self.graphs: Graphs | None = None
        self._attached: dict[str, tuple[object, ...]] = {}
        self.work = Work(name, module, module.forward, often, draws=draws)

        @functools.wraps(module.forward)  # pipelines and hooks read the signature
        def forward(*inputs: Any, **named: Any) -> Any:
            return self.run(*inputs, **named)

        module.forward = forward

    def run(self, *inputs: Any, **named: Any) -> Any:
        """One forward pass."""
        if self.graphs is None:
            return self.work.forward(*inputs, **named)
        return self.graphs.run(self._choose_work(), self.fingerprint, *inputs, **named)

    def begin(self) -> None:
        """Passes of a batch are next: see to it that none is done with weights which are elsewhere by now."""
        if self.graphs is not None:
            self.graphs.check(self.work.module, self.version)

    def attach(self, kind: str, *what: object) -> None:
        """Note that these, and no others of their kind, act in the module from now on; none of them: nothing does."""
        self._attached[kind] = what
        self.version += 1

    def change_adapters(self) -> None:
        """Note that adapters were loaded or taken off, while the module's own weights stay."""
        self.version += 1
        self.adapters += 1
        if self.graphs is not None:
            self.graphs.forget_adapters(self.work.module)

    def invalidate(self) -> None:
        """Note that weights were moved, cast or replaced."""
        self.version += 1
        if self.graphs is not None:
            self.graphs.forget(self.work.module)

    @property
    def fingerprint(self) -> tuple[tuple[str, tuple[object, ...]], ...]:
        """What acts in the module now, such as LoRAs and their scales; equal for equal functions of equal weights."""
        return tuple(sorted((kind, what) for kind, what in self._attached.items() if what))

    def _choose_work(self) -> Work:
        return self.work


class DecoderRunner(PassRunner):
    """Runs the decoder of an AutoencoderKL.

    Pipelines cast a VAE that overflows in half precision to float32 and back, for each picture that it encodes or
    decodes: then the weights are elsewhere each time. Such passes are done by a copy that stays.
    """

    def __init__(self, vae: Any) -> None:
        """As `PassRunner`."""
        super().__init__("decoder", vae.decoder, often=_PICTURES, draws=True)
        self._dtype = _dtype(vae.decoder)
        self._address: int | None = None  # of the first weight, when the first picture was decoded
        self._copies: dict[torch.dtype, Work] = {}

    def invalidate(self) -> None:
        """As `PassRunner`."""
        super().invalidate()
        self._address = None
        while self._copies:
            _, work = self._copies.popitem()
            if self.graphs is not None:
                self.graphs.forget(work.module)

    def _choose_work(self) -> Work:
        decoder = self.work.module
        dtype, address = _dtype(decoder), next(decoder.parameters()).data_ptr()
        if self._address is None:
            self._address = address
        if (dtype, address) == (self._dtype, self._address):
            return self.work
        if dtype not in self._copies:
            self._copies[dtype] = _copy_in_float32(decoder) if dtype != self._dtype else _copy_as_it_is(decoder)
        return self._copies[dtype]


def _copy_as_it_is(decoder: torch.nn.Module) -> Work:
    copied = _copy(decoder)
    return Work("decoder", copied, copied.forward, _PICTURES, draws=True)


def _copy_in_float32(decoder: torch.nn.Module) -> Work:
    """Compiled, it computes in bfloat16, which has the range of float32."""
    exact = _copy(decoder)
    lean = _copy(decoder).to(torch.bfloat16)

    def decode(latents: Tensor, *rest: Any, **named: Any) -> Tensor:
        picture: Tensor = lean(latents.to(torch.bfloat16), *rest, **named)
        return picture.to(latents.dtype)

    lean_work = Work("decoder in bfloat16", lean, decode)
    return Work("decoder", exact, exact.forward, _PICTURES, compiled_as=lean_work, draws=True)


def _copy(module: torch.nn.Module) -> torch.nn.Module:
    """The module with weights of its own, and the forward of its class."""
    copied = copy.deepcopy(module)
    del copied.forward
    return copied


def _dtype(module: torch.nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
