"""Over every kind of add-on and every family: what a job asks for is drawn, or refused by field.

No request that is admitted ends as an error of the worker's, and none takes the worker down.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.every_field import FAMILIES, equip, requests
from tests.helpers.faults import a_worker, engine_of, is_open
from tests.helpers.fuzzing import examples
from tests.helpers.tiny_addons import Kits
from tests.helpers.tiny_controlnets import Places
from worker.runtime.worker import Worker

ENDINGS: Counter[tuple[str, str]] = Counter()


class Workers(dict[str, Worker]):
    """Family -> a worker with everything beside its tiny model, started when first asked for."""

    def __init__(self, kits: Kits, places: Places, root: Path, stack: ExitStack) -> None:
        self._kits, self._places, self._root, self._stack = kits, places, root, stack

    def __missing__(self, family: str) -> Worker:
        environment = equip(family, self._kits, self._places, self._root)
        self[family] = self._stack.enter_context(a_worker(**environment))
        return self[family]


@pytest.fixture(scope="module")
def workers(kits: Kits, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with ExitStack() as stack:
        yield Workers(kits, places, tmp_path_factory.mktemp("others"), stack)


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@examples(5)
def test_it_is_drawn_or_refused_by_field(family: str, workers: Workers, data: Any) -> None:
    worker = workers[family]
    job = data.draw(requests(engine_of(worker).capabilities))

    answer = worker.handle({"id": "test", "input": job})

    ENDINGS[family, answer.get("code", "drawn")] += 1
    assert answer.get("code") in (None, "INVALID_INPUT"), answer
    assert "images" in answer or answer["fields"]
    assert is_open(worker)


def test_both_happen(workers: Workers) -> None:
    """Else the story would say nothing."""
    assert all(ENDINGS[family, "drawn"] for family in workers), ENDINGS
    assert any(ENDINGS[family, "INVALID_INPUT"] for family in workers), ENDINGS
