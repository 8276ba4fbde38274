"""Calls: the two logs of each, the request it was made for, and relations of endpoints."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from prepared import framewalk

from framewalk.engine import CaptureReader, Plan, Store, read_entities, replay
from framewalk.engine.archive import Archive, ArchiveOptions, Mode
from framewalk.engine.calls import (
    ARCHIVED_COLUMNS,
    HTTP_LOGS_SCHEMA,
    archived_logs,
    calls_of,
    clock_offsets,
    edges_of,
    pair,
    read_http_logs,
    relations_of,
    with_sources,
)

ROVER = Path(__file__).parent / "rover"
MS, NS = 10**6, 10**9
START_NS = 1_800_000_000 * NS
LOADGEN, FRONTEND, BACKEND = "loadgen.shop", "frontend.shop", "backend.shop"
GET, POST, HEAD = 0, 1, 4

Row = dict[str, Any]


# ---- what an unchanged Rover sent ---------------------------------------------


@pytest.fixture(scope="module")
def rover_logs() -> pl.DataFrame:
    entities = read_entities(ROVER / "cluster.json")
    found = []
    for path in sorted((ROVER / "part1").glob("*.arrows")):
        with CaptureReader(path) as reader:
            found.append(read_http_logs((batch.messages for batch in reader), entities))
    return pl.concat(found)


@pytest.fixture(scope="module")
def rover_calls(rover_logs: pl.DataFrame) -> pl.DataFrame:
    return calls_of(rover_logs)


def test_each_call_of_rover_is_there_once(rover_calls: pl.DataFrame) -> None:
    seen = dict(rover_calls.group_by("observed_by").len().iter_rows())
    assert seen == {"both": 683, "client": 297}


def test_who_called_whom_for_what(rover_calls: pl.DataFrame) -> None:
    """tests/rover/README.md: loadgen serves nothing, so nothing is attributed to it."""
    names = ("source_service", "source_endpoint", "dest_service", "derivation", "observed_by")
    found = {tuple(row[:5]): row[5] for row in rover_calls.group_by(names).len().iter_rows()}
    items = (FRONTEND, "GET:/api/items", BACKEND)
    assert found == {
        (*items, "exact", "client"): 120,
        (*items, "inferred", "client"): 120,
        (LOADGEN, "Unknown", FRONTEND, "unknown", "both"): 593,
        (LOADGEN, "Unknown", FRONTEND, "unknown", "client"): 7,
        (LOADGEN, "Unknown", BACKEND, "unknown", "both"): 90,
        (LOADGEN, "Unknown", BACKEND, "unknown", "client"): 50,
    }


def test_an_archive_has_the_same_logs(
    rover_logs: pl.DataFrame, rover_calls: pl.DataFrame, few_plan: Plan, tmp_path: Path
) -> None:
    with (
        Store(tmp_path / "metrics.duckdb", few_plan) as store,
        Archive(store, tmp_path / "logs", ArchiveOptions(Mode.HTTP)) as archive,
    ):
        replay([ROVER / "part1"], read_entities(ROVER / "cluster.json"), store, archive=archive)
        logs = archived_logs(store.query(f"SELECT {ARCHIVED_COLUMNS} FROM http_logs").pl())
    kept = [name for name in HTTP_LOGS_SCHEMA if name != "components"]
    assert_frame_equal(
        logs.select(kept), rover_logs.select(kept), check_row_order=False, check_exact=True
    )
    edges = edges_of(calls_of(logs))
    assert_frame_equal(edges, edges_of(rover_calls))
    items = edges.filter(source_endpoint="GET:/api/items", derivation="exact").row(0, named=True)
    assert items["dest_endpoint"] == "GET:/items.json"
    assert (items["calls"], items["seen_by_client"], items["seen_by_both"]) == (120, 120, 0)


def test_the_command_says_who_called_whom_and_where_it_cannot(
    few_plan: Plan, tmp_path: Path
) -> None:
    path, logs = tmp_path / "metrics.duckdb", tmp_path / "logs"
    with Store(path, few_plan) as store:
        store.checkpoint()
    bare = framewalk("calls", "--store", path)
    assert (bare.returncode, bare.stdout) == (1, "")
    assert bare.stderr == (
        f"error: {path}: this store has no logs, and so no calls; "
        "make it with framewalk replay --archive\n"
    )
    with (
        Store(path, few_plan) as store,
        Archive(store, logs, ArchiveOptions(Mode.HTTP)) as archive,
    ):
        replay([ROVER / "part1"], read_entities(ROVER / "cluster.json"), store, archive=archive)
    done = framewalk("calls", "--store", path, "--limit", "0", "--format", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert not told["truncated"]
    assert sum(row["calls"] for row in told["rows"]) == 980
    page = framewalk("calls", "--store", path, "--limit", "1")
    assert page.stdout.count("\n") == 2
    assert "these are the first 1 rows; --limit 0 prints all" in page.stderr
    shutil.rmtree(logs)
    lost = framewalk("calls", "--store", path)
    assert lost.returncode == 1
    assert lost.stderr == (
        f"error: {path}: the archive of this store is not there; "
        "put it back, or start a replay or a server with its new place\n"
    )


def test_relations_of_rover_are_its_calls(rover_logs: pl.DataFrame, plan: Plan) -> None:
    found = relations_of(rover_logs, plan)
    assert found.observed.select(pl.col("both", "client", "server").sum()).row(0) == (683, 297, 0)
    items = found.states.scalars.filter(pl.col("source_endpoint") == "GET:/api/items")
    assert items["dest_endpoint"].unique().to_list() == ["GET:/items.json"]
    assert items["http.count()"].sum() == 240
    ledger = json.loads((ROVER / "ledger" / "loadgen-keepalive.json").read_text(encoding="utf-8"))
    sent_back = ledger["response_bytes"]["GET /api/items"]
    assert items["http.sum(response_body_size_bytes)"].sum() == sent_back
    percentile = next(name for name in found.states.keyed if "serving_duration_ns" in name)
    assert found.states.keyed[percentile]["value"].sum() == 980


@pytest.mark.parametrize(
    ("method", "path", "wanted_ms"),
    [
        (GET, "/api/items", (310, 221, 262)),
        (POST, "/orders", (211, 63, 147)),
        (HEAD, "/api/ping", (145, 34, 60)),
    ],
)
def test_three_latencies_of_the_same_calls(
    rover_logs: pl.DataFrame, method: int, path: str, wanted_ms: tuple[int, int, int]
) -> None:
    """Medians as docs/semantics.md shows them: Rover's of the server, ours, the client's."""
    calls = pair(rover_logs).drop_nulls(["client_log", "server_log"])
    served, called = rover_logs[calls["server_log"]], rover_logs[calls["client_log"]]
    durations = served.select(
        "method",
        "path",
        rover="duration_ns",
        ours="serving_duration_ns",
        client=called["serving_duration_ns"],
    ).filter((pl.col("method") == method) & (pl.col("path") == path))
    medians = durations.select(pl.col("rover", "ours", "client").median() / MS).row(0)
    assert tuple(map(round, medians)) == wanted_ms


# ---- made logs ------------------------------------------------------------------


def log(role: str, start: int, end: int, **more: Any) -> Row:  # noqa: ANN401 - any column
    """Return a log of a call from the pod a-1 to the pod b-1, with times in ms."""
    is_server = role == "server"
    ends = {"service": ("a", "b"), "pod": ("a-1", "b-1"), "port": (40_000, 80)}
    sides = {
        f"{side}_{name}": values[is_server if side == "local" else not is_server]
        for name, values in ends.items()
        for side in ("local", "remote")
    }
    made = dict.fromkeys(HTTP_LOGS_SCHEMA, 0) | sides
    made |= dict.fromkeys(name for name in made if name.startswith("trace_"))
    made |= {"local_is_pod": True, "remote_is_pod": True}
    made |= {"role": role, "node": f"node-{sides['local_pod'][0]}", "cluster": "", "path": "/"}
    made |= {"tls_mode": "Plain", "components": 1, "status_code": 200}
    start_ns = START_NS + start * MS
    lasts_ns = (end - start) * MS
    made |= {"time_ns": start_ns, "serving_start_ns": start_ns}
    made |= {"duration_ns": lasts_ns, "serving_duration_ns": lasts_ns}
    return made | more


def frame(*rows: Row) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=HTTP_LOGS_SCHEMA)


def pairs(logs: pl.DataFrame) -> set[tuple[int | None, int | None]]:
    return set(pair(logs).select("client_log", "server_log").iter_rows())


def test_the_port_of_the_service_does_not_keep_logs_apart() -> None:
    logs = frame(log("client", 0, 10, remote_port=80), log("server", 2, 8, local_port=8080))
    assert pairs(logs) == {(0, 1)}


@pytest.mark.parametrize("differing", [{"path": "/x"}, {"status_code": 500}, {"method": 1}])
def test_logs_that_differ_are_two_calls(differing: Row) -> None:
    logs = frame(log("client", 0, 10), log("server", 2, 8, **differing))
    assert pairs(logs) == {(0, None), (None, 1)}


@pytest.mark.parametrize("offset_ms", [0, 700, -2_000, 4_900])
def test_clocks_that_differ_are_put_right(offset_ms: int) -> None:
    rows = []
    for start in (0, 311, 1_500, 1_530, 2_900, 4_100):
        rows.append(log("client", start, start + 20))
        if start != 1_500:  # a log that is missing
            rows.append(log("server", start + 5 + offset_ms, start + 15 + offset_ms))
    assert pairs(frame(*rows)) == {(0, 1), (2, 3), (4, None), (5, 6), (7, 8), (9, 10)}


def test_an_offset_is_where_all_calls_agree() -> None:
    """One bounds it to 695 to 705 ms, the other to 691 to 701 ms."""
    clients = pl.DataFrame({"start_ns": [0, 100], "end_ns": [20, 120], "path": ["/a", "/b"]})
    servers = pl.DataFrame({"start_ns": [705, 801], "end_ns": [715, 811], "path": ["/a", "/b"]})
    at = pl.col("start_ns", "end_ns") * MS
    found = clock_offsets(
        clients.with_columns(at, node=pl.lit("a")),
        servers.with_columns(at, node=pl.lit("b")),
        ["path"],
    )
    assert found.rows() == [("a", "b", 698 * MS)]


def test_of_calls_at_the_same_moment_the_same_one_is_paired() -> None:
    request = log("server", 0, 50, local_pod="a-1", remote_pod="x-1", **trace("t1"))
    twins = [log("client", 5, 20, **trace("t1")), log("client", 5, 20)]
    served = log("server", 8, 12)
    for rows in (twins, twins[::-1]):
        calls = calls_of(frame(request, *rows, served))
        seen = calls.filter(pl.col("derivation") != "unknown").select("derivation", "observed_by")
        assert sorted(seen.rows()) == [("exact", "both"), ("inferred", "client")]


def trace(name: str) -> Row:
    return {
        "trace_provider": 1,
        "trace_id": name,
        "trace_segment_id": "s",
        "trace_span_id": "1",
    }


def test_calls_that_overlap_are_as_many_as_there_are() -> None:
    rows = [log("client", start, 100 + start) for start in range(4)]
    rows += [log("server", 10 + start, 90 + start) for start in range(3)]
    assert pairs(frame(*rows)) == {(0, 4), (1, 5), (2, 6), (3, None)}


def test_a_call_counts_when_it_is_served_by_the_servers_clock(plan: Plan) -> None:
    minute = START_NS // (60 * NS)
    logs = frame(
        log("client", 59_990, 60_100), log("server", 60_010, 60_020), log("client", 59_999, 61_000)
    )
    states = relations_of(logs, plan).states.scalars.sort("minute")
    assert states.select("minute", "http.count()").rows() == [(minute, 1), (minute + 1, 1)]


def test_a_window_is_all_that_a_minute_depends_on(plan: Plan) -> None:
    """Logs that are further away change nothing, not even the offset of the clocks."""
    minute = START_NS // (60 * NS)
    near = [log("client", 0, 20), log("server", 1_005, 1_015)]
    far = [log("client", 200_000 + at, 200_020 + at) for at in (0, 700, 1_500)]
    far += [log("server", 203_005 + at, 203_015 + at) for at in (0, 700, 1_500)]
    alone = relations_of(frame(*near), plan, [minute])
    among = relations_of(frame(*near, *far), plan, [minute])
    assert alone.observed["both"].to_list() == [1]
    assert_same(among.states.scalars, alone.states.scalars)
    assert_same(among.observed, alone.observed)


def test_the_method_of_a_number_that_is_not_known_has_a_name() -> None:
    calls = calls_of(frame(log("client", 0, 10, method=77)))
    assert calls["dest_endpoint"].to_list() == ["UNKNOWN:/"]


def assert_same(one: pl.DataFrame, other: pl.DataFrame) -> None:
    assert_frame_equal(one, other, check_row_order=False)


# ---- against all pairs, one by one -------------------------------------------------


@st.composite
def crowded_logs(draw: st.DrawFn) -> list[Row]:
    """Draw requests of pods that call each other, close in time; any log may be missing."""
    rows = []
    choose = draw(st.randoms(use_true_random=False))
    for _ in range(draw(st.integers(0, 25))):
        start = choose.randrange(60)
        end = start + choose.randrange(30)
        source, dest = choose.choice([("x", "a"), ("a", "b"), ("a", "b"), ("b", "c")])
        trace = choose.choice([None, None, "t1", "t2"])
        more: Row = {
            "path": choose.choice(["/", "/p"]),
            "trace_id": trace,
            "trace_provider": trace and choose.choice([0, 1]),
            "trace_segment_id": trace and choose.choice(["", "s1"]),
            "trace_span_id": trace and choose.choice(["1", "2"]),
        }
        port = choose.choice([1, 2])
        served = {"local_service": dest, "local_pod": f"{dest}-1", "remote_pod": f"{source}-1"}
        if choose.random() < 0.85:
            unserved = {"serving_start_ns": None, "serving_duration_ns": None}
            gone = unserved if choose.random() < 0.1 else {}
            own = {"remote_service": source, "remote_port": port, "node": f"node-{dest}"}
            rows.append(log("server", start + 1, max(end - 1, start + 1), **served, **own, **more))
            rows[-1] |= gone
        if choose.random() < 0.85:
            called = {
                "local_service": source,
                "local_pod": f"{source}-1",
                "remote_pod": f"{dest}-1",
            }
            own = {"remote_service": dest, "local_port": port, "node": f"node-{source}"}
            rows.append(log("client", start, end, **called, **own, **more))
    return rows


@settings(max_examples=12, deadline=None)
@given(rows=crowded_logs(), choose=st.randoms(use_true_random=False))
def test_any_order_of_logs_gives_the_same_relations(
    plan: Plan, rows: list[Row], choose: random.Random
) -> None:
    shuffled = rows.copy()
    choose.shuffle(shuffled)
    cut = len(rows) // 2
    one = relations_of(frame(*rows), plan)
    other = relations_of(pl.concat([frame(*shuffled[cut:]), frame(*shuffled[:cut])]), plan)
    assert_same(one.states.scalars, other.states.scalars)
    assert_same(one.observed, other.observed)
    for name, states in one.states.keyed.items():
        assert_same(states, other.states.keyed[name])


@settings(max_examples=60, deadline=None)
@given(rows=crowded_logs())
def test_sources_are_those_that_section_6_says(rows: list[Row]) -> None:
    logs = frame(*rows)
    found = with_sources(pair(logs), logs)
    calls = list(found.iter_rows(named=True))
    for call in calls:
        assert (call["derivation"], call["source_log"]) == source_of(call, calls, rows)


def source_of(call: Row, calls: list[Row], rows: list[Row]) -> tuple[str, int | None]:
    """Return what the written rule says, request by request."""
    own = None if call["client_log"] is None else rows[call["client_log"]]
    other = None if call["server_log"] is None else rows[call["server_log"]]
    told = (
        own
        if own is not None and (own["trace_id"] or other is None or not other["trace_id"])
        else other
    )
    assert told is not None
    pod = own["local_pod"] if own is not None else other["remote_pod"]  # type: ignore[index]
    requests = [
        at for at, row in enumerate(rows) if (row["role"], row["local_pod"]) == ("server", pod)
    ]
    trace = told["trace_provider"], told["trace_id"]
    context = told["trace_segment_id"], told["trace_span_id"]

    def of_trace(at: int) -> bool:
        row = rows[at]
        same = (row["trace_provider"], row["trace_id"]) == trace
        return bool(told["trace_id"]) and same and row["serving_start_ns"] is not None

    def of_context(at: int) -> bool:
        return (rows[at]["trace_segment_id"], rows[at]["trace_span_id"]) == context

    if own is None:
        named = [at for at in requests if of_trace(at) and of_context(at)]
        return ("exact", named[0]) if len(named) == 1 else ("unknown", None)
    lasting = [at for at in requests if lasts_over(rows[at], call)]
    traced = [at for at in lasting if of_trace(at)]
    if len(traced) > 1:
        traced = [at for at in traced if of_context(at)]
        return ("exact", traced[0]) if len(traced) == 1 else ("unknown", None)
    if traced:
        return "exact", traced[0]
    unseen = [
        one
        for one in calls
        if one["server_log"] is None
        and rows[one["client_log"]]["remote_pod"] == pod
        and one["there_start_ns"] <= call["start_ns"]
        and call["end_ns"] <= one["there_end_ns"]
    ]
    if unseen or len(lasting) != 1 or rows[lasting[0]]["serving_start_ns"] is None:
        return "unknown", None
    row = rows[lasting[0]]
    is_other = row["trace_id"] and told["trace_id"] and row["trace_provider"] == trace[0]
    if is_other and row["trace_id"] != trace[1]:
        return "unknown", None
    return "inferred", lasting[0]


def lasts_over(request: Row, call: Row) -> bool:
    start_ns = request["serving_start_ns"]
    if start_ns is None:
        start_ns = request["time_ns"]
    lasts_ns = request["duration_ns"]
    return bool(start_ns <= call["start_ns"] and call["end_ns"] <= start_ns + lasts_ns)
