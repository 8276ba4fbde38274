"""The answers that the seeded captures must give, as recorded in `answers.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from frame.results import Results, RowResult

ANSWERS: Final = Path(__file__).parents[1] / "answers.json"


def check_answer(size: str, row: RowResult) -> None:
    """Compare a row's answer with the recorded one; a row that has none is new.

    Raises:
        AssertionError: it differs.
    """
    recorded = _read().get(size, {}).get(_key(row))
    found = {"rows": row.rows, "checksum": row.checksum}
    assert recorded is None or recorded == found, (
        f"{_key(row)}: the answer is {found}, {ANSWERS.name} has {recorded}; "
        "if that is meant, run bench.py with --record-answers"
    )


def record_answers(results: Results) -> None:
    """Write the answers of a run; those of other rows and sizes stay."""
    recorded = _read()
    of_size = recorded.setdefault(results.size, {})
    for row in results.rows:
        of_size[_key(row)] = {"rows": row.rows, "checksum": row.checksum}
    ANSWERS.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _key(row: RowResult) -> str:
    return f"{row.benchmark}: {row.name}"


def _read() -> dict[str, Any]:
    if not ANSWERS.exists():
        return {}
    return dict(json.loads(ANSWERS.read_text(encoding="utf-8")))
