"""Results of expressions are those of an OAP, but for what is listed with a reason."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from mqe_golden import NOT_COMPARABLE, Compared, compare_all, listed_differences


@pytest.fixture(scope="module")
def compared(golden_store: Path, empty_store: Path) -> list[Compared]:
    return compare_all(golden_store, empty_store)


def test_every_difference_is_listed(compared: list[Compared]) -> None:
    wrong = [f"{one.name}: {one.words[:1_000]}" for one in compared if one.words]
    assert wrong == []


def test_96_in_100_are_equal(compared: list[Compared]) -> None:
    kinds = Counter(one.difference.kind for one in compared if one.difference)
    comparable = len(compared) - kinds[NOT_COMPARABLE]
    assert len(compared) > 1_200
    assert kinds[NOT_COMPARABLE] < 40
    assert sum(one.difference is None for one in compared) / comparable >= 0.96


def test_every_listed_difference_has_a_reason_and_is_used(compared: list[Compared]) -> None:
    for listed in listed_differences():
        assert listed.kind
        assert listed.reason.endswith(".")
        names = [one.name for one in compared if one.difference == listed]
        for pattern in listed.names:
            assert any(fnmatchcase(name, pattern) for name in names), pattern
