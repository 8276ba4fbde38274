"""Malformed expressions: never an exception, always an error that says where."""

from __future__ import annotations

import mqe_fuzz
import pytest


def test_2000_malformed_expressions_are_told() -> None:
    assert mqe_fuzz.ask_all(1, 2_000)["malformed"] == 2_000


@pytest.mark.long
def test_100000_malformed_expressions_are_told() -> None:
    assert mqe_fuzz.ask_all(2, 100_000)["malformed"] == 100_000
