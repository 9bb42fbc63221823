"""Builds the C module with which Triton launches kernels, so that an image can compile passes without a C compiler.

Otherwise Triton builds it at its first kernel. Run once when the image is built, in its environment, with gcc at hand.
"""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

LAUNCHER = Path(sys.prefix) / "triton-launcher.so"  # where worker/engine/denoiser/compiled.py looks for it


def main() -> None:
    """Build it, if Triton is installed."""
    spec = find_spec("triton")
    if spec is None or spec.origin is None:
        print("no Triton here, so there is nothing to launch")
        return
    build(Path(spec.origin).parent / "backends" / "nvidia", LAUNCHER)


def build(backend: Path, target: Path) -> None:
    """The module of this backend's folder, to this file."""
    compiler = shutil.which("gcc") or "cc"
    with tempfile.TemporaryDirectory() as place:
        driver = Path(place) / "libcuda.so.1"  # stands for the driver, which comes with the GPU
        shared = [compiler, "-shared", "-fPIC", "-O3", "-Wno-psabi"]
        subprocess.run([*shared, "-Wl,-soname,libcuda.so.1", "-xc", "/dev/null", "-o", str(driver)], check=True)
        headers = [f"-I{backend / 'include'}", f"-I{sysconfig.get_paths()['include']}"]
        linked = ["-Wl,--no-as-needed", str(driver), "-o", str(target)]
        subprocess.run([*shared, str(backend / "driver.c"), *headers, *linked], check=True)


if __name__ == "__main__":
    main()
