"""LoRAs: loaded at the first job that names them, kept while there is room, and active for their job only.

A LoRA that is switched off leaves the model's own layers to compute alone, so a job without one draws, bit for bit,
what it would draw on a worker that never loaded any.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from worker.engine.adapters.lora_file import adapter_name
from worker.engine.adapters.lora_fit import add_adapter
from worker.engine.denoiser.runner import PassRunner
from worker.engine.device_errors import is_device_fault, is_out_of_memory
from worker.errors import ModelError, SettingsError
from worker.files import UnreadableError, find_size
from worker.models.paths import name_unreadable
from worker.models.shared_fetches import SharedFetches
from worker.request import Lora

log = logging.getLogger("worker")

MAX_LORAS = 16
MAX_LORA_BYTES = 2_000_000_000


@dataclass(frozen=True)
class _Loaded:
    """One that is kept.

    Attributes:
        size: of its file, in bytes.
        notes: what of it has no effect.
    """

    size: int
    notes: tuple[str, ...]


class LoraFiles:
    """The files of LoRAs, each fetched once for the managers of all pipelines that may load it."""

    def __init__(self, places: Mapping[str, str], fetch: Callable[[str], Path]) -> None:
        """None is fetched yet.

        Args:
            places: name -> file or hub id.
            fetch: a place -> the file, checked.
        """
        self.places = places
        self.managers: list[LoraManager] = []
        self._fetch = fetch
        self._fetches = SharedFetches(lambda place: self._fetch(place))
        self._files: dict[str, Path] = {}

    def fetch(self, name: str, check: Callable[[], None]) -> None:
        """Have it, unless all have loaded it."""
        if not all(one.has_loaded(name) for one in self.managers):
            self._files[name] = self._fetches.get(self.places[name], check)

    def find(self, name: str) -> Path:
        """It, fetched now if it was not before."""
        return self._files.get(name) or self._fetches.get(self.places[name], lambda: None)


class LoraManager:
    """The LoRAs of one pipeline, the least recently used taken off first."""

    def __init__(
        self, pipeline: Any, runner: PassRunner, files: LoraFiles, words: Mapping[str, Collection[str]]
    ) -> None:
        """Nothing is loaded yet.

        Args:
            runner: of the pipeline's denoiser; told which LoRAs act in it.
            words: name -> bundled words of it that the text encoders know.

        Raises:
            SettingsError: there are some, and the model takes none.
        """
        if files.places and not hasattr(pipeline, "load_lora_weights"):
            raise SettingsError(f"LORA_DIR, LORA_REPOS: {type(pipeline).__name__} takes no LoRA")
        self._pipeline = pipeline
        self._runner = runner
        self._files = files
        self._words = words
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        files.managers.append(self)

    def has_loaded(self, name: str) -> bool:
        """Whether it needs no file for this one."""
        return name in self._loaded

    def fetch(self, loras: Sequence[Lora], check: Callable[[], None]) -> None:
        """Have the files of those that a pipeline has not loaded yet, this one or another that shares them; from any
        thread, so that those that draw wait for none.

        Args:
            check: called every 0.2 s meanwhile; what it raises ends the wait.

        Raises:
            ModelError: one cannot be fetched, or is not what it should be.
        """
        for lora in loras:
            self._files.fetch(lora.name, check)

    @contextmanager
    def activate(self, loras: Sequence[Lora], check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Let these LoRAs, and no others, act inside the `with`.

        Args:
            check: called before each is loaded; what it raises ends that.

        Raises:
            ModelError: one does not fit this model; or was not fetched before, and cannot be.
        """
        if not loras:
            yield
            return
        wanted = [lora.name for lora in loras]
        for name in wanted:
            check()
            self._ensure_loaded(name, wanted)
        try:
            self._pipeline.enable_lora()
            self._pipeline.set_adapters([adapter_name(name) for name in wanted], [lora.scale for lora in loras])
            self._runner.attach("LoRA", *loras)
            yield
        finally:
            self._pipeline.disable_lora()
            self._runner.attach("LoRA")

    def list_warnings(self, loras: Sequence[Lora]) -> list[str]:
        """What of these, which have been active, has no effect on this model."""
        loaded = [(lora.name, self._loaded.get(lora.name)) for lora in loras]
        return [f"LoRA {name}: {note}" for name, one in loaded if one is not None for note in one.notes]

    def _ensure_loaded(self, name: str, wanted: Sequence[str]) -> None:
        if name in self._loaded:
            self._loaded.move_to_end(name)
            return
        file = self._files.find(name)
        with name_unreadable():
            size = find_size(file)
        self._make_room(size, wanted)
        notes = self._load(name, file)
        self._loaded[name] = _Loaded(size, notes)
        log.info("LoRA %s: %.1f MB, %d loaded", name, size / 1e6, len(self._loaded))
        for note in notes:
            log.warning("LoRA %s: %s", name, note)

    def _make_room(self, size: int, wanted: Sequence[str]) -> None:
        for name in [name for name in self._loaded if name not in wanted]:
            held = sum(loaded.size for loaded in self._loaded.values())
            if len(self._loaded) < MAX_LORAS and held + size <= MAX_LORA_BYTES:
                return
            self._discard(adapter_name(name))
            del self._loaded[name]

    def _load(self, name: str, file: Path) -> tuple[str, ...]:
        """Make it an adapter that is switched off; what of it has no effect."""
        key = adapter_name(name)
        try:
            notes = add_adapter(self._pipeline, file, key, self._words.get(name, ()))
        except (UnreadableError, SafetensorError) as error:  # it has changed since it was checked
            raise ModelError(f"the LoRA {name} cannot be read: {error}") from error
        except Exception as error:  # what peft raises for layers that it does not know has no common class
            if is_device_fault(error):
                raise
            self._discard(key)
            if is_out_of_memory(error):
                raise
            raise ModelError(f"the LoRA {name} does not fit this model: {_summarize_error(error)}") from error
        self._pipeline.disable_lora()
        self._runner.change_adapters()
        return notes

    def _discard(self, key: str) -> None:
        """Take off an adapter, or what a failed load has left of one."""
        self._pipeline.delete_adapters(key)
        self._pipeline.disable_lora()
        self._runner.change_adapters()


def _summarize_error(error: Exception) -> str:
    """What an exception says first, with the reason that torch puts on its second line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])[:300]
