"""How cost grows with logs, connections, definitions and minutes, all else being equal."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial as bind
from typing import TYPE_CHECKING, Final

from frame.captures import capture_of
from frame.contest import Answer, Benchmark, Call, Point, Series, rows_answer, text_answer
from frame.hours import write_hours, write_minutes
from frame.stages import cut, first_messages, follow, states_answer
from suite.queries import service_map

from framewalk.engine import Store, load_plan, open_for_reading, partial, read_entities
from framewalk.engine.oal import make_plan
from framewalk.engine.stages.decoding import decode

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb
    import polars as pl
    import pyarrow as pa
    from frame.captures import Capture
    from frame.contest import Context

    from framewalk.engine import Entities, Plan, States
    from framewalk.engine.oal import Metric

# So that the definitions of any number are a mix of all scopes and functions.
_ORDER_SEED: Final = 7
_LONGEST_PART_OF_A_DAY: Final = 120
DAY_PERCENTILES: Final = "SELECT service, kubernetes_service_percentile.p99 FROM service_day"


def benchmark(context: Context) -> Benchmark:
    """Measure each series over a few doublings."""
    plan = load_plan()
    return Benchmark(
        series=[
            _logs(context, plan),
            _connections(context, plan),
            _definitions(context, plan),
            _definitions_of_a_store(context, plan),
            _minutes(context, plan),
            _stored_hours(context),
            _minutes_of_a_day(context),
        ]
    )


def _doubling(context: Context, highest: int) -> list[int]:
    """Return as many doublings as the size asks for, the last being the highest."""
    return [highest >> by for by in range(context.size.doublings, -1, -1)]


def _partial(
    name: str, batches: list[pa.RecordBatch], entities: Entities, plan: Plan
) -> Call[States]:
    return Call(name, 1, lambda: partial(batches, entities, plan), states_answer)


def _logs(context: Context, plan: Plan) -> Series:
    """A longer part of the same capture."""
    capture = capture_of(context.size.main)
    entities = read_entities(capture.dump_path)
    highest = min(capture.summary.messages, 4 * context.size.sample_messages)
    points = []
    for messages in _doubling(context, highest):
        batches = list(first_messages(capture, messages))
        logs = round(capture.summary.logs * messages / capture.summary.messages)
        points.append(Point(logs, _partial(f"{logs:,} logs", batches, entities, plan)))
    return Series("logs", "logs", points, "messages to states of the first part of a capture")


def _connections(context: Context, plan: Plan) -> Series:
    """As many requests among more pods, so that each connection has fewer logs."""
    points = []
    for replicas in (1 << by for by in range(context.size.doublings + 1)):
        capture = capture_of(replace(context.size.growth, replicas=replicas))
        batches, entities = _read(capture), read_entities(capture.dump_path)
        connections = _count_connections(batches)
        work = _partial(f"{connections:,} connections", batches, entities, plan)
        points.append(Point(connections, work))
    return Series(
        "connections",
        "connections",
        points,
        "messages to states; as many requests per second among more pods and connections",
    )


def _definitions(context: Context, plan: Plan) -> Series:
    """More of the shipped definitions over the same messages."""
    capture = capture_of(context.size.growth)
    batches, entities = _read(capture), read_entities(capture.dump_path)
    points = [
        Point(number, _partial(f"{number} definitions", batches, entities, chosen))
        for number, chosen in _plans(context, plan)
    ]
    return Series(
        "definitions", "definitions", points, "messages to states with some of the definitions"
    )


def _definitions_of_a_store(context: Context, plan: Plan) -> Series:
    """More definitions in a new store: what a replay pays before its first log."""
    points = [
        Point(number, Call(f"{number}", 1, bind(_new_store, chosen), _names_answer))
        for number, chosen in _plans(context, plan)
    ]
    return Series(
        "definitions of a new store",
        "definitions",
        points,
        "making the tables and views of a store in memory, without any log",
    )


def _new_store(plan: Plan) -> list[str]:
    with Store(":memory:", plan) as store:
        return [name for (name,) in store.query("SELECT name FROM metrics").fetchall()]


def _names_answer(names: list[str]) -> Answer:
    return text_answer(*names)


def _plans(context: Context, plan: Plan) -> Iterator[tuple[int, Plan]]:
    metrics: list[Metric] = list(plan.metrics)
    random.Random(_ORDER_SEED).shuffle(metrics)  # noqa: S311 - seeded on purpose
    for number in _doubling(context, len(metrics)):
        yield number, make_plan(metrics[:number])


def _minutes(context: Context, plan: Plan) -> Series:
    """As many requests, spread over more minutes."""
    growth = context.size.growth
    points = []
    for times in (1 << by for by in range(context.size.doublings + 1)):
        slower = replace(
            growth,
            duration_s=growth.duration_s * times,
            requests_per_second=growth.requests_per_second / times,
        )
        capture = capture_of(slower)
        batches, entities = _read(capture), read_entities(capture.dump_path)
        minutes = slower.duration_s / 60
        points.append(Point(minutes, _partial(f"{minutes:g} minutes", batches, entities, plan)))
    return Series(
        "minutes", "minutes", points, "messages to states; as many requests over a longer time"
    )


def _stored_hours(context: Context) -> Series:
    """The service map of six hours, out of stores that hold more and more."""
    points = []
    for hours in filter(None, _doubling(context, context.size.store_hours)):
        path = context.folder / f"{hours}_hours.duckdb"
        write_hours(context, path, hours)
        connection = open_for_reading(path)
        work = Call(
            f"{hours} hours",
            1,
            bind(_frame, connection, service_map(connection)),
            lambda frame: rows_answer({"map": frame}),
        )
        points.append(Point(hours * 60, work))
    return Series(
        "stored minutes", "minutes", points, "the service map of six hours over a growing store"
    )


def _minutes_of_a_day(context: Context) -> Series:
    """The percentiles of a day, out of more and more of its minutes."""
    points = []
    for minutes in _doubling(context, _LONGEST_PART_OF_A_DAY >> (4 - context.size.doublings)):
        path = context.folder / f"{minutes}_minutes.duckdb"
        write_minutes(context, path, minutes)
        work = Call(
            f"{minutes} minutes",
            1,
            bind(_percentiles, open_for_reading(path)),
            lambda rows: text_answer(*sorted(map(str, rows))),
        )
        points.append(Point(minutes, work))
    return Series(
        "minutes of a day",
        "minutes",
        points,
        "p99 of every service for a day, out of a store with some of its minutes",
    )


def _percentiles(connection: duckdb.DuckDBPyConnection) -> list[tuple[object, ...]]:
    return connection.sql(DAY_PERCENTILES).fetchall()


def _frame(connection: duckdb.DuckDBPyConnection, query: str) -> pl.DataFrame:
    found: pl.DataFrame = connection.sql(query).pl()
    return found


def _read(capture: Capture) -> list[pa.RecordBatch]:
    return list(first_messages(capture, capture.summary.messages))


def _count_connections(batches: list[pa.RecordBatch]) -> int:
    decoded = [one for piece in cut(batches) for one in decode(piece)]
    return sum(context.connections.height for context in follow(decoded))
