"""What several tests need."""

from __future__ import annotations

from pathlib import Path

import pytest

from framewalk.engine.oal.files.definitions import load_plan
from framewalk.engine.oal.plan import Plan

CAPTURES = Path(__file__).parent.parent / "fixtures" / "captures"


@pytest.fixture(scope="session")
def plan() -> Plan:
    """All shipped definitions."""
    return load_plan()


@pytest.fixture(params=["bookinfo", "boutique"], scope="session")
def scenario(request: pytest.FixtureRequest) -> Path:
    """The folder of each committed capture with its dump."""
    return CAPTURES / request.param
