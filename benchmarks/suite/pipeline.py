"""All stages in this process, messages to states, beside the slow reference of the tests.

The reference (`tests/reference`) is the written semantics in plain Python, a log at a time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
from frame.captures import capture_of
from frame.contest import Benchmark, Call, Contest, Rival
from frame.hours import open_empty_store
from frame.stages import Stages, beside_bare_decode, first_messages, states_answer
from rivals.values import LONG_SCHEMA, store_values, values_answer

from framewalk.engine import partial
from framewalk.engine.oal import PERCENTILES

if TYPE_CHECKING:
    from collections.abc import Callable

    from frame.contest import Answer, Context

TESTS = Path(__file__).parents[2] / "tests"


def benchmark(context: Context) -> Benchmark:
    """Compute the states of the sample; the reference takes fewer messages."""
    stages = Stages(context)
    batches = list(first_messages(stages.capture, context.size.sample_messages))
    work = Call(
        "partial",
        stages.logs,
        lambda: partial(batches, stages.entities, stages.plan),
        states_answer,
    )
    contest = Contest(
        "messages to states",
        "logs",
        work,
        "decoding; everything after it together costs about as much again.",
        [beside_bare_decode(stages), Rival(_reference(context), same_answer=False)],
    )
    return Benchmark([contest])


def _reference(context: Context) -> Call[Any]:
    """Return the reference, after checking that it and the engine agree on its messages."""
    sys.path.insert(0, str(TESTS))
    from reference import (  # type: ignore[import-not-found]  # noqa: PLC0415 - lies in tests
        analyse,
        load_dump,
        read_definitions,
    )

    capture = capture_of(context.size.main)
    batches = list(first_messages(capture, context.size.row_messages))
    rows = [
        row
        for batch in batches
        for row in zip(
            batch["stream"].to_pylist(),
            batch["seq"].to_pylist(),
            batch["received_at"].cast(pa.int64()).to_pylist(),
            batch["message"].to_pylist(),
            strict=True,
        )
    ]
    dump, definitions = load_dump([capture.dump_path]), read_definitions()
    stages = Stages(context, context.size.row_messages)
    work: Callable[[], Any] = lambda: analyse(rows, dump, definitions)  # noqa: E731 - one line
    assert _answer(work()) == _engine_answer(context, stages), "the reference and the engine differ"
    return Call("row by row: the tests' reference", stages.logs, work, _answer)


def _engine_answer(context: Context, stages: Stages) -> Answer:
    with open_empty_store(context, stages.plan, "pipeline.duckdb") as store:
        store.commit(None, stages.capture.path, [], stages.states)
        return values_answer(store_values(store, stages.plan))


def _answer(result: Any) -> Answer:  # noqa: ANN401 - the reference is found at run time
    rows = [
        (view, bucket // 60, "|".join(names), name, number)
        for view, entities in result.values.items()
        for (names, bucket), values in entities.items()
        for metric, value in values.items()
        for name, number in _numbers(metric, value)
    ]
    return values_answer([pl.DataFrame(rows, schema=LONG_SCHEMA, orient="row")])


def _numbers(metric: str, value: Any) -> list[tuple[str, int]]:  # noqa: ANN401 - as above
    if isinstance(value, dict):
        return [(f"{metric} p{p}", value[f"p{p}"]) for p in PERCENTILES]
    return [(metric, value)]
