"""A loaded model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from worker.engine.adapters.ip_adapter import IPAdapter
from worker.engine.adapters.loras import LoraManager
from worker.engine.pipelines import build_pipeline, combine_controlnets, task_classes
from worker.engine.preview import Previewer
from worker.engine.recovery import Snapshot
from worker.models.capabilities import TEXT, Capabilities


@dataclass(frozen=True)
class Engine:
    """A loaded model.

    Attributes:
        pipeline: the diffusers pipeline, on `device`.
        capabilities: what it can do, for the request parser.
        refiner: SDXL's second pipeline, which shares the first one's VAE and second text encoder; or None.
        loras: those that jobs may name.
        controlnets: the same, by name.
        image_prompter: the IP-Adapter; or None.
        words: of textual inversion.
        previewer: shows what is being drawn.
        release: to be called after each job.
        snapshot: how every weight was after loading.
        scheduler_config: the model's own scheduler config as loaded; every scheduler is built from it.
        schedulers, pipelines: those built so far.
    """

    pipeline: Any
    capabilities: Capabilities
    device: torch.device
    refiner: Any | None
    loras: LoraManager
    controlnets: Mapping[str, Any]
    ip_adapter: IPAdapter | None
    words: frozenset[str]
    previewer: Previewer
    release: Callable[[], None]
    snapshot: Snapshot
    scheduler_config: Mapping[str, Any]
    schedulers: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    pipelines: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def repair(self) -> None:
        """Put the weights back as they were after loading, whatever an exception has left behind."""
        self.release()
        self.snapshot.restore()

    def pipeline_for(self, task: str, controlnets: tuple[str, ...] = (), safety_checker: bool = True) -> Any:
        """The pipeline that does this task, around the modules that are loaded already.

        Args:
            task: as in `Capabilities.tasks`.
            controlnets: the names of those it follows.
            safety_checker: False for a pass whose picture is not the last.
        """
        if task == TEXT and safety_checker:
            return self.pipeline
        key = task, controlnets, safety_checker
        if key not in self.pipelines:
            kind = task_classes(type(self.pipeline))[task]
            extra = (
                {"controlnet": combine_controlnets([self.controlnets[name] for name in controlnets])}
                if controlnets
                else {}
            )
            self.pipelines[key] = build_pipeline(self.pipeline, kind, safety_checker, **extra)
        return self.pipelines[key]
