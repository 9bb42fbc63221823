"""For the tests that need a GPU: without one, they say so."""

import pytest
import torch


def pytest_collection_modifyitems() -> None:
    """End the run where there is no GPU."""
    if not torch.cuda.is_available():
        pytest.exit("these tests need a CUDA device", returncode=1)
