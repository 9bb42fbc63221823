"""A loaded model on its device, with everything that jobs may use beside it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from worker.engine.adapters.ip_adapter import IPAdapter
from worker.engine.adapters.loras import LoraManager
from worker.engine.batch_size import BatchSize
from worker.engine.cache import TensorCache
from worker.engine.decoder import DecoderGuard
from worker.engine.denoiser.graphs import Graphs, Mode
from worker.engine.denoiser.runner import PassRunner
from worker.engine.denoiser.split import Helper
from worker.engine.pipelines import build_pipeline, combine_controlnets, control_class, task_classes
from worker.engine.preview import Previewer
from worker.engine.recovery import Snapshot
from worker.engine.refusals import Refusals
from worker.engine.writing import Writing
from worker.models.capabilities import EDIT, TEXT, Capabilities
from worker.plan import Pass


@dataclass(frozen=True)
class Engine:
    """A loaded model.

    Attributes:
        pipeline: the diffusers pipeline, on `device`.
        capabilities: what it can do, for the request parser.
        runners: of the denoiser, the refiner's, the decoder and the ControlNets.
        graphs: of what they run; None where all of it runs as it is written.
        refiner: SDXL's second pipeline, which shares the first one's VAE and second text encoder; or None.
        loras: those that jobs may name.
        controlnets: the same, by name.
        ip_adapter: the IP-Adapter; or None.
        words: of textual inversion.
        word_notes: of those that were left out, or of which a part has no effect.
        bundled_words: LoRA -> words that jobs with it may use -> what they are in the tokenizers.
        previewer: shows what is being drawn.
        batch_size: how many pictures are drawn at once.
        release: to be called after each job.
        snapshot: how every weight was after loading.
        scheduler_config: the model's own scheduler config as loaded; every scheduler is built from it.
        writing: what its language models write before they draw.
        decoder_guard: of the VAE, where there is one.
        refusals: what it has been seen to fail at.
        schedulers, pipelines: those built so far.
        embeddings: of prompts that jobs had before.
    """

    pipeline: Any
    capabilities: Capabilities
    device: torch.device
    runners: tuple[PassRunner, ...]
    graphs: Graphs | None
    refiner: Any | None
    loras: LoraManager
    controlnets: Mapping[str, Any]
    ip_adapter: IPAdapter | None
    words: frozenset[str]
    word_notes: Mapping[str, str]
    bundled_words: Mapping[str, Mapping[str, str]]
    previewer: Previewer
    batch_size: BatchSize
    release: Callable[[], None]
    snapshot: Snapshot
    scheduler_config: Mapping[str, Any]
    writing: Writing
    decoder_guard: DecoderGuard
    refusals: Refusals = field(default_factory=Refusals)
    schedulers: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    pipelines: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    embeddings: TensorCache = field(default_factory=TensorCache)

    @property
    def mode(self) -> Mode | None:
        """How passes were done since the drawing began; None on a CPU, where there is one way."""
        if self.device.type != "cuda":
            return None
        return self.graphs.mode if self.graphs else "off"

    def works(self) -> bool:
        """Whether the device still answers, once it has done what it has in hand."""
        try:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        except torch.AcceleratorError:
            return False
        return True

    def seed(self, seed: int) -> None:
        """For whatever draws random numbers by no generator of its own; another card's are its own."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)

    @contextmanager
    def drawing(self, helper: "Engine | None" = None) -> Iterator[None]:
        """To be entered to draw a job, or several at once; nothing else disturbs them inside the `with`.

        The device is CUDA's current one there, of which each thread has its own: some kernels ask for no other.

        Args:
            helper: an engine of the same model on another device, that does nothing else meanwhile.
        """
        asked = None if helper is None else self._ask(helper)
        current = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
        with current, nullcontext() if self.graphs is None else self.graphs.drawing(asked):
            yield

    def without_graphs(self) -> AbstractContextManager[None]:
        """Inside the `with` passes run as they are written, and what memory graphs have kept is free."""
        return nullcontext() if self.graphs is None else self.graphs.set_aside()

    def _ask(self, helper: "Engine") -> Helper | None:
        if helper.graphs is None:
            return None
        return Helper(
            helper.graphs.device, {one.work: twin for one, twin in zip(self.runners, helper.runners, strict=True)}
        )

    def repair(self) -> None:
        """Put the weights back as they were after loading, whatever an exception has left behind."""
        self.release()
        self.embeddings.clear()
        if self.snapshot.restore():
            for runner in self.runners:
                runner.invalidate()

    def pipeline_for(self, one: Pass) -> Any:
        """The pipeline that runs this pass, around the modules that are loaded already."""
        if one.kind == "refine":
            return self.refiner
        if one.task in (TEXT, EDIT) and one.checks_safety:
            return self.pipeline
        key = one.task, one.controlnets, one.checks_safety
        if key not in self.pipelines:
            # What a model follows by its own weights is no ControlNet.
            nets = [self.controlnets[name] for name in one.controlnets if name in self.controlnets]
            kind = type(self.pipeline)
            extra = {"controlnet": combine_controlnets(nets)} if nets else {}
            wanted = control_class(kind, one.task, nets) if nets else task_classes(kind)[one.task]
            self.pipelines[key] = build_pipeline(self.pipeline, wanted, one.checks_safety, **extra)
        return self.pipelines[key]
