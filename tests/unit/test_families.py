"""The table of families: every row can be found, and is described to the tests as it is published."""

from itertools import combinations

import pytest

from tests.helpers.asking import model_of
from worker.models.families import FAMILIES, Family


@pytest.mark.parametrize(("above", "below"), list(combinations(FAMILIES, 2)), ids=lambda row: row.name)
def test_no_row_hides_one_below_it(above: Family, below: Family) -> None:
    hides = above.pipeline == below.pipeline and above.traits.items() <= below.traits.items()
    assert not hides, f"{below.name} is never found below {above.name}"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda row: row.name)
def test_every_family_is_known_to_the_tests_as_published(family: Family) -> None:
    assert model_of(family.name).family == family
