"""The answers that the seeded captures must give, as recorded in `answers.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from frame.results import Results, RowResult, SeriesResult

ANSWERS: Final = Path(__file__).parents[1] / "answers.json"


def check_answers(results: Results) -> None:
    """Compare the answers of all rows and series with the recorded ones.

    Raises:
        AssertionError: one differs, or none is recorded for it.
    """
    of_size = _read().get(results.size, {})
    for one in results.answered:
        recorded = of_size.get(one.key)
        assert recorded == _answer(one), (
            f"{one.key}: the answer is {_answer(one)}, {ANSWERS.name} has {recorded}; "
            "if that is meant, or this is new, run bench.py with --record-answers"
        )


def record_answers(results: Results) -> None:
    """Write the answers of a run; those of other benchmarks and sizes stay."""
    ran = {one.benchmark for one in results.answered}
    recorded = _read()
    kept = {
        key: answer
        for key, answer in recorded.get(results.size, {}).items()
        if key.partition(": ")[0] not in ran
    }
    found = {one.key: _answer(one) for one in results.answered}
    recorded[results.size] = kept | found
    ANSWERS.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _answer(found: RowResult | SeriesResult) -> dict[str, Any]:
    return {"rows": found.rows, "checksum": found.checksum}


def _read() -> dict[str, Any]:
    return dict(json.loads(ANSWERS.read_text(encoding="utf-8")))
