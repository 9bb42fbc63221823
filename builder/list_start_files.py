"""Lists the files that a worker's start reads before its model: the modules that it imports, and libraries.

Run once when the image is built, in its environment: `python list_start_files.py > "$VIRTUAL_ENV/start-files.txt"`.
A start then reads them ahead (worker/read_ahead.py). A build has no GPU, so cuDNN, which torch opens where there is
one, is added by name.
"""

import gc
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

_LATER = ("nvidia/cudnn/lib/libcudnn*.so*", "nvidia/cu*/lib/libcublas*.so*")  # beside torch


def main() -> None:
    """Import what a worker imports, and print what was read."""
    gc.disable()  # imports leave no garbage
    from worker.models.quantised import may_be_quantised
    from worker.settings import list_unused_packages
    from worker.spared_imports import spare_imports

    spare_imports(list_unused_packages(may_be_quantised))
    import worker.runtime.worker

    assert worker.runtime.worker
    print(*dict.fromkeys([*_libraries(), *_modules(), *_later()]), sep="\n")


def _modules() -> Iterator[str]:
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        for file in (getattr(spec, "cached", None), getattr(spec, "origin", None)):
            if file and Path(file).is_file():
                yield file
                break


def _libraries() -> Iterator[str]:
    """Those that are mapped into this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if match := re.search(r"(/\S+\.so[\w.]*)$", line):
            yield match[1]


def _later() -> Iterator[str]:
    spec = find_spec("torch")
    packages = Path(spec.origin).parents[1] if spec and spec.origin else Path()
    for pattern in _LATER:
        yield from map(str, sorted(packages.glob(pattern)))


if __name__ == "__main__":
    main()
