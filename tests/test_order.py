"""Order does not matter: batches, interleaving, order of captures and grouping of merges."""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from batches import Row, as_batch
from comparison import assert_same
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from strategies import BASE, HOSTILE_DUMP, NS, HostileCapture, hostile_captures

import framewalk.queries
from framewalk.engine.captures.format import CapturePosition, CaptureReader, CaptureWriter
from framewalk.engine.counters import Counters
from framewalk.engine.kubernetes.addresses import Entities, read_entities
from framewalk.engine.oal.files.definitions import load_plan
from framewalk.engine.oal.plan import Plan, make_plan
from framewalk.engine.runs.replayer import replay
from framewalk.engine.stages.pipeline import BATCH_MESSAGES, partial, regroup, step
from framewalk.engine.stages.streams import Carried
from framewalk.engine.states.merging import (
    States,
    merge,
    sum_expression,
    sum_fits,
)
from framewalk.engine.store.store import Store
from framewalk.engine.views import RESOLUTIONS
from framewalk.engine.wire import access_log_pb2 as pb

Views = dict[str, list[tuple[Any, ...]]]

# The functions that no shipped metric uses: they keep extremes, and counts by key.
OTHER_FUNCTIONS = """\
service_longest_write = from(K8SService.write.duration).filter(type == "write").max();
service_shortest_read = from(K8SService.read.duration).filter(type == "read").min();
endpoint_largest_answer = from(K8SEndpoint.http.sizeOfResponseBody).max();
service_latencies = from(K8SService.protocol.http.latency)
    .filter(protocol.type == "http")
    .histogram(10, 5);
service_kinds = from(K8SService.*).labelCount(type);
service_call_time_by_kind = from(K8SService.*).labelAvg(type, protocol.http.statusCode);
"""

# A smaller example would need hundreds of stores.
NOT_SHRUNK = [Phase.explicit, Phase.reuse, Phase.generate]
SLOW_TO_MAKE = [HealthCheck.too_slow, HealthCheck.data_too_large]


@dataclass(frozen=True, repr=False)
class World:
    """What the tests share; its short repr keeps a failing example readable."""

    every_function: Plan
    few_metrics: Plan
    entities: Entities
    empty_store: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    others, dump, store = (folder / name for name in ("others.oal", "kubectl.yaml", "empty.duckdb"))
    others.write_text(OTHER_FUNCTIONS, encoding="utf-8")
    dump.write_text(HOSTILE_DUMP, encoding="utf-8")
    every_function = load_plan([Path(framewalk.queries.__path__[0]) / "oal", others])
    few_metrics = one_of_each(every_function)
    Store(store, few_metrics).close()
    return World(every_function, few_metrics, read_entities(dump), store)


def one_of_each(plan: Plan) -> Plan:
    """Return one metric of each function in each scope: a store of these is soon made."""
    chosen = {(metric.scope.view, metric.function.name): metric for metric in plan.metrics}
    return make_plan(tuple(chosen.values()))


@settings(max_examples=8, suppress_health_check=SLOW_TO_MAKE)
@given(capture=hostile_captures(), data=st.data())
def test_batches_do_not_matter(capture: HostileCapture, data: st.DataObject, world: World) -> None:
    whole = partial([as_batch(capture.rows)], world.entities, world.few_metrics)
    cut = cut_up(capture.rows, data.draw(cuts(len(capture.rows))))
    in_steps = merge(
        world.few_metrics, *steps(map(as_table, cut), world.entities, world.few_metrics)
    )
    assert_same(world.few_metrics, in_steps, whole)
    batches = [as_batch(rows) for rows in cut]
    assert_same(world.few_metrics, partial(batches, world.entities, world.few_metrics), whole)


@settings(max_examples=8, suppress_health_check=SLOW_TO_MAKE)
@given(capture=hostile_captures(), data=st.data())
def test_interleaving_does_not_matter(
    capture: HostileCapture, data: st.DataObject, world: World
) -> None:
    whole = partial([as_batch(capture.rows)], world.entities, world.few_metrics)
    turns = data.draw(st.permutations([row[0] for row in capture.rows]))
    mixed = interleaved(capture.rows, turns)
    cut = cut_up(mixed, data.draw(cuts(len(mixed), most=2)))
    in_steps = merge(
        world.few_metrics, *steps(map(as_table, cut), world.entities, world.few_metrics)
    )
    assert_same(world.few_metrics, in_steps, whole)


@settings(max_examples=8, suppress_health_check=SLOW_TO_MAKE)
@given(capture=hostile_captures(), data=st.data())
def test_captures_merge_in_any_grouping_and_order(
    capture: HostileCapture, data: st.DataObject, world: World
) -> None:
    whole = partial([as_batch(capture.rows)], world.entities, world.few_metrics)
    captures = data.draw(dealt_out(capture.rows))
    parts = [partial([as_batch(rows)], world.entities, world.few_metrics) for rows in captures]
    assert_same(world.few_metrics, merged_somehow(world.few_metrics, parts, data), whole)


@settings(max_examples=4, phases=NOT_SHRUNK, suppress_health_check=SLOW_TO_MAKE)
@given(capture=hostile_captures(), data=st.data())
def test_commits_in_any_order_give_the_same_views(
    capture: HostileCapture,
    data: st.DataObject,
    world: World,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("commits")
    whole = partial([as_batch(capture.rows)], world.entities, world.few_metrics)
    want = committed([whole], copied(world.empty_store, folder / "once.duckdb"), world.few_metrics)
    parts = [
        part
        for rows in data.draw(dealt_out(capture.rows))
        for part in steps(
            map(as_table, cut_up(rows, data.draw(cuts(len(rows), most=2)))),
            world.entities,
            world.few_metrics,
        )
    ]
    shuffled = data.draw(st.permutations(parts))
    got = committed(shuffled, copied(world.empty_store, folder / "parts.duckdb"), world.few_metrics)
    assert got == want


@settings(max_examples=5, phases=NOT_SHRUNK, suppress_health_check=SLOW_TO_MAKE)
@given(capture=hostile_captures(), data=st.data())
def test_captures_replayed_in_any_order_give_the_same_views(
    capture: HostileCapture,
    data: st.DataObject,
    world: World,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("captures")
    paths = [
        write_rows(folder / f"{number}.capture.arrows", rows, data.draw(cuts(len(rows))))
        for number, rows in enumerate(data.draw(dealt_out(capture.rows)))
    ]
    results = []
    for name, order in (("one", paths), ("two", data.draw(st.permutations(paths)))):
        with Store(
            copied(world.empty_store, folder / f"{name}.duckdb"), world.few_metrics
        ) as store:
            counters = replay(order, world.entities, store).counters
            results.append((counters, read_all(store)))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(one, marks=pytest.mark.long) for one in (1, 2))]
)
def test_a_real_capture_in_pieces_has_the_same_states(
    scenario: Path, world: World, seed: int
) -> None:
    rows = capture_table(scenario)
    entities = read_entities(scenario / "kubectl.yaml")
    whole, _ = step(rows, Carried(), entities, world.every_function)
    draws = random.Random(seed)  # noqa: S311 - reproducible
    mixed = rows.take(mixed_rows(rows, draws))
    ends = sorted(draws.sample(range(1, rows.num_rows), 6))
    cut = (mixed.slice(start, end - start) for start, end in pairwise([0, *ends, rows.num_rows]))
    parts = list(steps(cut, entities, world.every_function))
    draws.shuffle(parts)
    assert whole.counters.logs > 40_000
    assert_same(world.every_function, merge(world.every_function, *parts), whole)


def test_real_captures_in_any_order_give_the_same_views(world: World, tmp_path: Path) -> None:
    """Both scenarios into one store, so each capture resolves its addresses in both dumps."""
    folder = Path(__file__).parent.parent / "fixtures" / "captures"
    bookinfo, boutique = (folder / name for name in ("bookinfo", "boutique"))
    entities = read_entities(bookinfo / "kubectl.yaml", boutique / "kubectl.yaml")
    found = []
    for name, order in (("one", (bookinfo, boutique)), ("two", (boutique, bookinfo))):
        with Store(
            copied(world.empty_store, tmp_path / f"{name}.duckdb"), world.few_metrics
        ) as store:
            replay(order, entities, store)
            found.append(read_all(store))
    assert found[0] == found[1]
    assert len(found[0]["service_minute"]) > 50


def test_a_sum_by_label_stops_at_the_end_of_the_range_however_it_was_committed(
    world: World, tmp_path: Path
) -> None:
    definition = tmp_path / "label.oal"
    definition.write_text(
        "service_time_by_kind = from(K8SService.*).labelAvg(type, write.duration);", "utf-8"
    )
    plan = load_plan([definition])
    rows: list[Row] = [(stream, 0, BASE * NS, longest_write()) for stream in range(2)]
    once = [partial([as_batch(rows)], world.entities, plan)]
    twice = [partial([as_batch([row])], world.entities, plan) for row in rows]
    want = committed(once, tmp_path / "once.duckdb", plan)
    assert committed(twice, tmp_path / "twice.duckdb", plan) == want


@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-5, 5)), max_size=6))
@example([2**62, 2**61])
@example([-(2**62), -(2**61)])
@example([2**62, 2**62 - 1])
@example([2**62, 2**62])
@example([-(2**62), -(2**62)])
@example([-(2**62), -(2**62) - 1])
def test_a_sum_is_exact_within_the_range_and_stops_at_its_ends(values: list[int]) -> None:
    frame = pl.DataFrame({"value": pl.Series(values, dtype=pl.Int64)})
    fits = sum_fits(frame["value"], frame.height)
    found = frame.select(sum_expression(pl.col("value"), exact=fits)).item()
    assert found == min(max(sum(values), -(2**63)), 2**63 - 1)
    assert not fits or found == sum(values)


@pytest.mark.parametrize("moments_ns", [(BASE * NS, 2**63 - 1), (0, 2**63 - 1)])
def test_the_ends_of_time_resolve_the_same_alone_and_among_others(
    moments_ns: Sequence[int], world: World
) -> None:
    """The batch of both has a moment at which addresses change, so it resolves by epochs."""
    rows: list[Row] = [
        (stream, 0, 2**63 - 1, write_to_pod(boot_ns)) for stream, boot_ns in enumerate(moments_ns)
    ]
    whole = partial([as_batch(rows)], world.entities, world.few_metrics)
    parts = [partial([as_batch([row])], world.entities, world.few_metrics) for row in rows]
    assert_same(world.few_metrics, merge(world.few_metrics, *parts), whole)
    assert whole.counters.dropped == {}


def test_no_message_of_a_long_batch_is_left_out(world: World) -> None:
    rows: list[Row] = [(0, number, BASE * NS, b"") for number in range(5 * BATCH_MESSAGES)]
    whole = partial([as_batch(rows)], world.entities, world.few_metrics)
    assert whole.counters.messages == len(rows)


def test_what_is_worked_on_at_once_is_bounded_by_messages_too() -> None:
    batches = [as_batch([(0, 0, BASE * NS, b"")] * 10_000)] * 12
    groups = regroup(batches, lambda batch: batch)
    assert [sum(batch.num_rows for batch in group) for group in groups] == [50_000, 50_000, 20_000]


def write_to_pod(boot_ns: int) -> bytes:
    message = pb.EBPFAccessLogMessage()
    message.node.bootTime.seconds, message.node.bootTime.nanos = divmod(boot_ns, NS)
    message.connection.local.kubernetes.serviceName = "frontend.shop"
    message.connection.remote.ip.host = "10.0.0.7"
    message.kernelLogs.add().write.SetInParent()
    return message.SerializeToString()


def longest_write() -> bytes:
    message = pb.EBPFAccessLogMessage()
    message.node.bootTime.seconds = BASE
    message.connection.local.kubernetes.serviceName = "frontend.shop"
    message.connection.remote.kubernetes.serviceName = "cart.shop"
    write = message.kernelLogs.add().write
    write.startTime.offset.offset = 0
    write.endTime.offset.offset = 2**63 - 1
    return message.SerializeToString()


def as_table(rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_batches([as_batch(rows)])


def cuts(length: int, most: int = 3) -> st.SearchStrategy[list[int]]:
    """Draw the places at which rows are cut; a place drawn twice makes an empty batch."""
    return st.lists(st.integers(0, length), max_size=most).map(sorted)


def cut_up(rows: Sequence[Row], places: Sequence[int]) -> list[Sequence[Row]]:
    return [rows[start:end] for start, end in pairwise([0, *places, len(rows)])]


def interleaved(rows: Sequence[Row], turns: Iterable[int]) -> list[Row]:
    """Return the rows in the order in which their streams take turns."""
    streams: dict[int, Iterator[Row]] = {
        number: iter(of_stream) for number, of_stream in by_stream(rows).items()
    }
    return [next(streams[number]) for number in turns]


def by_stream(rows: Iterable[Row]) -> dict[int, list[Row]]:
    streams: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        streams[row[0]].append(row)
    return streams


@st.composite
def dealt_out(draw: st.DrawFn, rows: Sequence[Row]) -> list[list[Row]]:
    """Deal whole streams out to up to three captures; a capture may be empty."""
    captures: list[list[Row]] = [[] for _ in range(draw(st.integers(1, 3)))]
    owner = {number: draw(st.integers(0, len(captures) - 1)) for number in by_stream(rows)}
    for row in rows:
        captures[owner[row[0]]].append(row)
    return captures


def steps(tables: Iterable[pa.Table], entities: Entities, plan: Plan) -> Iterator[States]:
    """Yield the states of tables that follow each other in one capture."""
    carried = Carried()
    for table in tables:
        states, carried = step(table, carried, entities, plan)
        yield states


def merged_somehow(plan: Plan, parts: Sequence[States], data: st.DataObject) -> States:
    """Merge one to three drawn states at a time until one is left."""
    left = list(parts)
    while len(left) > 1:
        count = data.draw(st.integers(1, min(3, len(left))))
        places = data.draw(st.permutations(range(len(left))))[:count]
        chosen = [left[place] for place in places]
        left = [one for place, one in enumerate(left) if place not in places]
        left.insert(0, merge(plan, *chosen))
        if count == 1:
            left.append(left.pop(0))
            left[:2] = [merge(plan, *left[:2])]
    return left[0]


def copied(store: Path, path: Path) -> Path:
    return Path(shutil.copyfile(store, path))


def committed(parts: Sequence[States], path: Path, plan: Plan) -> tuple[Counters, Views]:
    """Commit each of these states on its own; return what the store then says."""
    with Store(path, plan) as store:
        for number, states in enumerate(parts):
            position = CapturePosition(number, number, f"{number}")
            store.commit(None, Path(f"{number}"), [position], states)
        return stored_counters(store), read_all(store)


def stored_counters(store: Store) -> Counters:
    total = Counters()
    rows = store.query("SELECT kind, name, count FROM internal.counters").fetchall()
    for kind, name, count in rows:
        if kind in {"messages", "logs"}:
            total += Counters(**{kind: count})
        else:
            getattr(total, kind)[name] += count
    return total


def read_all(store: Store) -> Views:
    """Return the rows of every view and of the catalogue of entities."""
    names = [
        f"{scope.scope.view}_{resolution.name}"
        for scope in store.plan.scopes
        for resolution in RESOLUTIONS
    ]
    return {
        name: sorted(store.query(f"FROM {name}").fetchall(), key=repr)
        for name in [*names, "entities"]
    }


def write_rows(path: Path, rows: Sequence[Row], places: Sequence[int]) -> Path:
    with CaptureWriter(path) as writer:
        for batch in cut_up(rows, places):
            writer.write(as_batch(batch))
    return path


def capture_table(scenario: Path) -> pa.Table:
    with CaptureReader(scenario / f"{scenario.name}.capture.arrows") as reader:
        return pa.Table.from_batches([batch.messages for batch in reader])


def mixed_rows(rows: pa.Table, draws: random.Random) -> list[int]:
    """Return the numbers of all rows with the streams in a random interleaving."""
    streams = rows["stream"].to_pylist()
    numbered: dict[int, list[int]] = defaultdict(list)
    for number, stream in enumerate(streams):
        numbered[stream].append(number)
    left = {stream: iter(numbers) for stream, numbers in numbered.items()}
    draws.shuffle(streams)
    return [next(left[stream]) for stream in streams]
