"""The whole replay, as a process, beside a process that only reads and decodes the capture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from frame.captures import capture_of
from frame.contest import Benchmark, Contest, Process, Rival, text_answer
from frame.hours import views_answer

from framewalk.engine import open_for_reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from frame.captures import Capture
    from frame.contest import Answer, Context

READ_ONLY: Final = Path(__file__).parents[1] / "rivals" / "read_only.py"
AT_MOST: Final = 2.5
_LOGS: Final = "SELECT sum(count)::BIGINT FROM internal.counters WHERE kind = 'logs'"


def benchmark(context: Context) -> Benchmark:
    """Replay the capture of this size with all definitions into a new DuckDB file."""
    capture = capture_of(context.size.main)
    contest = Contest(
        "whole replay",
        "logs",
        replay_process(capture, context.folder / "replay.duckdb"),
        "decoding, a third of it; a fixed 1.5 CPU seconds of imports and of making a store with "
        "all definitions; then flattening, resolving, hours and days in the end, and a roll-up for "
        "each commit of 500,000 logs.",
        [Rival(read_only_process(capture), same_answer=False, at_most=_limit(context))],
    )
    return Benchmark([contest])


def _limit(context: Context) -> float | None:
    """The limit is meant for captures of millions of logs; small ones are mostly start-up."""
    return AT_MOST if context.size.name == "large" else None


def replay_process(
    capture: Capture, store: Path, answer_of: Callable[[Path], Answer] = views_answer
) -> Process:
    """Replay a capture in one process; its answer is all that the store says by minute."""
    program = Path(sys.executable).with_name("framewalk")
    command: list[str | Path] = [
        program,
        "replay",
        capture.path,
        "--entities",
        capture.dump_path,
        "--store",
        store,
        # Several would take less time and more CPU.
        "--workers",
        "1",
    ]

    def answer(_output: str) -> Answer:
        with open_for_reading(store) as connection:
            ((logs,),) = connection.execute(_LOGS).fetchall()
        assert logs == capture.summary.logs, f"{logs:,} of {capture.summary.logs:,} logs"
        return answer_of(store)

    def remove() -> None:
        store.unlink(missing_ok=True)

    return Process("framewalk replay", capture.summary.logs, command, answer, remove)


def read_only_process(capture: Capture) -> Process:
    """Read and decode a capture in a process, and nothing more."""
    command: list[str | Path] = [sys.executable, READ_ONLY, capture.path]

    def answer(output: str) -> Answer:
        assert output.split() == [str(capture.summary.messages), str(capture.summary.logs)], output
        return text_answer(output)

    return Process("read and ptars only", capture.summary.logs, command, answer)
