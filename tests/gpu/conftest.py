"""For the tests that need a GPU: without one, they say so."""

import pytest
import torch

from tests.helpers.tiny_addons import Kits


def pytest_collection_modifyitems() -> None:
    """End the run where there is no GPU."""
    if not torch.cuda.is_available():
        pytest.exit("these tests need a CUDA device", returncode=1)


@pytest.fixture(scope="session")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Kits:
    """Tiny models, and what jobs may name beside them."""
    return Kits(tmp_path_factory.mktemp("kits"))
