"""Makes a virtual environment for each file in requirements/, and shows it the packages of the Python that makes it.

python -m examples.cuda_and_fork.make_environments [--into DIR] [NAME ...]

torch, diffusers and Pillow come from the Python that runs this; they are gigabytes. What a requirements file names is
installed in its environment and found first. pip's own variables work: with PIP_NO_INDEX=1 PIP_FIND_LINKS=DIR the
packages come from a folder of wheels.
"""

import argparse
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from examples.cuda_and_fork.harness.cases import REQUIREMENTS

ENVIRONMENTS = Path(__file__).resolve().parents[2] / ".venv" / "cuda_and_fork"


def make_environment(requirements: Path, folder: Path) -> None:
    """A virtual environment with these requirements, on top of this Python's packages."""
    venv.create(folder, clear=True, symlinks=True, with_pip=False)
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)}, scheme="venv")
    base = sysconfig.get_paths()["purelib"]
    # --system-site-packages would show those of the Python below, where this one is a virtual environment itself.
    (Path(paths["purelib"]) / "packages_of_the_maker.pth").write_text(f"import site; site.addsitedir({base!r})\n")
    pip = [sys.executable, "-m", "pip", "--python", str(find_python(folder)), "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--requirement", str(requirements)], check=True)


def find_python(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / "bin" / "python"


def main() -> None:
    """Make all, or those that are named."""
    parser = argparse.ArgumentParser(description="Virtual environments for the programs of examples/cuda_and_fork.")
    parser.add_argument("--into", type=Path, default=ENVIRONMENTS, help="folder that gets them")
    parser.add_argument("names", nargs="*", help="files of requirements/ without their suffix; all if left out")
    options = parser.parse_args()
    into: Path = options.into
    for requirements in [REQUIREMENTS / f"{name}.txt" for name in options.names] or sorted(REQUIREMENTS.glob("*.txt")):
        print(requirements.stem, flush=True)
        make_environment(requirements, into / requirements.stem)


if __name__ == "__main__":
    main()
