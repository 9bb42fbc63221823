"""PYTHONPATH for processes that tests start: these folders before those that this process has there."""

import os
from pathlib import Path


def python_path(*folders: Path) -> str:
    """The variable's value."""
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])
