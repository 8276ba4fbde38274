"""A store of what an OAP was fed whose answers are in golden/."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from framewalk.engine import Plan, Store, read_entities, replay

GOLDEN = Path(__file__).parent / "golden"
_A_YEAR_S = 366 * 86_400


def make_golden_store(path: Path, plan: Plan) -> dict[str, Any]:
    """Replay what the OAP was fed; returns what was counted."""
    with Store(path, plan) as store:
        entities = read_entities(GOLDEN / "cluster.yaml")
        summary = replay([GOLDEN], entities, store, most_ahead_s=_A_YEAR_S)
    counters = summary.counters
    return {"logs": counters.logs, "dropped": dict(counters.dropped)}


@contextmanager
def opened_golden_store(path: Path, plan: Plan) -> Iterator[Store]:
    """Open the store, which is made if it is not there."""
    if not path.exists():
        make_golden_store(path, plan)
    with Store(path, plan) as store:
        yield store
