"""What one sender makes up fills neither memory nor disk (engine/caps.py).

Up to the caps everything is as without them; beyond them all logs are counted or dropped with a
reason, and nobody else's are touched.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from batches import Row, as_batch
from comparison import assert_same, read_views

from framewalk.engine import CaptureWriter, Entities, Plan, Store, load_plan, partial, replay
from framewalk.engine.caps import OTHERS, Caps
from framewalk.engine.wire import access_log_pb2 as pb

NO_CAPS = Caps(2**40, 2**40, 2**40, 2**40)
NONE = Entities.empty()
SERVER = 1
BOOT_S = 1_700_000_040
RECEIVED_NS = (BOOT_S + 10**7) * 10**9
MINUTE = BOOT_S // 60


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


def request(service: str, path: str, minute: int = 0, client: str = "web") -> bytes:
    """One request that a service's pod served."""
    message = pb.EBPFAccessLogMessage()
    message.node.bootTime.seconds = BOOT_S
    connection = message.connection
    connection.role = SERVER
    connection.local.kubernetes.serviceName = service
    connection.local.kubernetes.podName = f"{service}-0"
    connection.remote.kubernetes.serviceName = client
    connection.remote.kubernetes.podName = f"{client}-0"
    http = message.protocolLog.http
    http.startTime.offset.offset = minute * 60 * 10**9
    http.endTime.offset.offset = minute * 60 * 10**9 + 5_000_000
    http.request.path = path
    http.response.statusCode = 200
    return message.SerializeToString()


def in_stream(messages: Iterable[bytes], stream: int = 1) -> list[Row]:
    return [(stream, seq, RECEIVED_NS, message) for seq, message in enumerate(messages)]


def in_some_order(messages: list[bytes], seed: int) -> list[bytes]:
    return random.Random(seed).sample(messages, len(messages))  # noqa: S311 - reproducible


def write(name: Path, rows: Sequence[Row], batch_rows: int = 10**9) -> Path:
    path = name.with_suffix(".capture.arrows")
    with CaptureWriter(path) as writer:
        for start in range(0, len(rows), batch_rows):
            writer.write(as_batch(rows[start : start + batch_rows]))
    return path


def requests_of(store: Store) -> dict[tuple[str, str, int], int]:
    """Return the requests of each endpoint in each minute, counted from BOOT_S."""
    rows = store.query(
        "SELECT service, endpoint, epoch(time_bucket)::BIGINT // 60, "
        "kubernetes_service_endpoint_call_cpm FROM endpoint_minute"
    ).fetchall()
    return {
        (service, endpoint, minute - MINUTE): calls for service, endpoint, minute, calls in rows
    }


def of_service(requests: dict[tuple[str, str, int], int], service: str) -> dict[str, int]:
    return {endpoint: calls for (one, endpoint, _), calls in requests.items() if one == service}


@pytest.mark.parametrize("seed", range(3))
def test_up_to_the_caps_nothing_changes_in_any_order(plan: Plan, seed: int) -> None:
    """Just as many as the caps let be: 3 services with a pod each, 4 minutes, in 2 streams."""
    messages = [
        request(service, f"/{number}", minute)
        for service in ("cart", "shop")
        for number in range(3)
        for minute in range(4)
    ]
    shuffled = in_some_order(messages, seed)
    rows = in_stream(shuffled[:15]) + in_stream(shuffled[15:], stream=2)
    caps = Caps(3, 6, 4, 6)
    found = partial([as_batch(rows[:9]), as_batch(rows[9:])], NONE, plan, caps=caps)
    assert_same(plan, found, partial([as_batch(in_stream(messages))], NONE, plan, caps=NO_CAPS))
    assert not found.counters.dropped


@pytest.mark.parametrize("batch_rows", [1, 7, 100])
def test_a_stream_may_name_so_many_entities(plan: Plan, batch_rows: int) -> None:
    """What came first stays; what others say is untouched, even if they name the same."""
    hostile = in_stream(request(f"made-up-{number}", "/") for number in range(50))
    honest = in_stream((request(f"made-up-{number}", "/") for number in (3, 48, 49)), stream=2)
    rows = [*hostile[:25], *honest, *hostile[25:]]
    batches = [as_batch(rows[at : at + batch_rows]) for at in range(0, len(rows), batch_rows)]
    found = partial(batches, NONE, plan, caps=Caps(entities_per_stream=22))
    assert found.counters.logs == 53
    # The client and its pod, and ten services with theirs; some are forgiven where a stream comes
    # in pieces, no more than the cap again.
    services = found.scopes["service"].scalars["service"].to_list()
    assert {"made-up-3", "made-up-48", "made-up-49", "made-up-0"} <= set(services)
    assert 12 <= len(services) <= 12 + 10
    assert found.counters.dropped == {"stream_entities": 53 - len(services) - 1}
    if batch_rows == 100:
        assert len(services) == 12


@pytest.mark.parametrize("batch_rows", [1, 100])
def test_a_stream_may_have_logs_of_so_many_minutes(plan: Plan, batch_rows: int) -> None:
    hostile = in_stream(request("shop", "/", minute) for minute in range(200))
    honest = in_stream((request("cart", "/", minute) for minute in (0, 100)), stream=2)
    rows = [*hostile[:150], *honest, *hostile[150:]]
    batches = [as_batch(rows[at : at + batch_rows]) for at in range(0, len(rows), batch_rows)]
    found = partial(batches, NONE, plan)
    scalars = found.scopes["service"].scalars
    kept = scalars.filter(scalars["service"] == "shop").height
    assert scalars.filter(scalars["service"] == "cart").height == 2
    assert kept == 64 if batch_rows == 100 else 64 <= kept <= 128
    assert found.counters.dropped == {"stream_minutes": 200 - kept}
    assert found.counters.logs == 202


def test_caps_of_a_stream_hold_for_the_parts_of_a_message(plan: Plan) -> None:
    message = pb.EBPFAccessLogMessage.FromString(request("shop", "/"))
    message.ClearField("protocolLog")
    for minute in range(300_000):
        message.kernelLogs.add().read.startTime.offset.offset = minute * 60 * 10**9
    rows = [(1, 0, 2 * 10**18, message.SerializeToString())]
    found = partial([as_batch(rows)], NONE, plan)
    assert found.scopes["service"].scalars.height == 64
    assert found.counters.dropped == {"stream_minutes": 300_000 - 64}


def test_endpoints_beyond_the_cap_are_others(tmp_path: Path, plan: Plan) -> None:
    """Each minute and service for itself, and over commits, captures and restarts."""
    caps = Caps(endpoints_per_service=5)
    hostile = [request("shop", f"/{number % 20}", number % 2) for number in range(400)]
    honest = [request("cart", f"/{number % 5}") for number in range(50)]
    first = write(tmp_path / "first", in_stream([*hostile[:200], *honest]), 50)
    second = write(tmp_path / "second", in_stream(hostile[200:], stream=2), 50)
    path = tmp_path / "store.duckdb"
    with Store(path, plan) as store:
        replay([first], NONE, store, commit_logs=1, caps=caps)
        once = requests_of(store)
    with Store(path, plan) as store:
        summary = replay([second], NONE, store, commit_logs=1, caps=caps)
        twice = requests_of(store)
        relations = dict(
            store.query(
                "SELECT dest_endpoint, count(*) FROM endpoint_relation_minute "
                "WHERE dest_service = 'shop' GROUP BY 1"
            ).fetchall()
        )
    assert of_service(once, "cart") == of_service(twice, "cart")
    assert of_service(twice, "cart") == {f"GET:/{number}": 10 for number in range(5)}
    for minute in (0, 1):
        shop = {
            one: calls for (of, one, at), calls in twice.items() if (of, at) == ("shop", minute)
        }
        assert len(shop) == 6
        assert shop.pop(OTHERS) == 200 - 5 * 20
        assert set(shop.values()) == {20}
    assert once.keys() == twice.keys()
    assert relations[OTHERS] == 2
    assert len(relations) == 11
    assert summary.counters.quality["other_endpoints"] > 0
    (capture,) = summary.captures
    assert capture.warning is not None
    assert "became `others`" in capture.warning


@pytest.mark.parametrize("seed", range(3))
def test_beyond_the_cap_sums_do_not_depend_on_order(tmp_path: Path, plan: Plan, seed: int) -> None:
    messages = [request("shop", f"/{number % 20}", number % 2) for number in range(300)]
    shuffled = in_some_order(messages, seed)
    path = write(tmp_path / "capture", in_stream(shuffled), 40)
    with Store(":memory:", plan) as store, Store(":memory:", plan) as without:
        replay([path], NONE, store, commit_logs=40, caps=Caps(endpoints_per_service=5))
        replay([path], NONE, without, caps=NO_CAPS)
        found, want = read_views(store), read_views(without)
        totals = "SELECT time_bucket, sum(kubernetes_service_endpoint_call_cpm) FROM "
        totals += "endpoint_minute GROUP BY ALL ORDER BY ALL"
        assert store.query(totals).fetchall() == without.query(totals).fetchall()
    for view in ("service", "service_relation", "service_instance"):
        assert values_of(found, view) == values_of(want, view)


def values_of(views: Any, scope: str) -> Any:  # noqa: ANN401 - as read_views gives them
    return {key: values for key, values in views.items() if key[0].startswith(f"{scope}_minute")}


def test_a_minute_has_room_for_so_many_entities(tmp_path: Path, plan: Plan) -> None:
    """Over streams, commits and restarts; what is refused in one minute may be in another."""
    caps = Caps(entities_per_minute=20)
    services = [f"made-up-{number}" for number in range(40)]
    rows = [
        row
        for stream, service in enumerate(services)
        for row in in_stream([request(service, "/"), request(service, "/")], stream)
    ]
    first, second = write(tmp_path / "first", rows[:40], 4), write(tmp_path / "second", rows[40:])
    third = write(tmp_path / "third", in_stream([request(services[-1], "/", 1)], 99))
    path = tmp_path / "store.duckdb"
    summaries = []
    for captures in ([first], [second, third]):
        with Store(path, plan) as store:
            summaries.append(replay(captures, NONE, store, caps=caps))
            requests = requests_of(store)
    # The client and its pod are two, nine services with theirs are eighteen.
    admitted = [service for service, _, minute in requests if minute == 0]
    assert len(admitted) == 9
    assert {requests[service, "GET:/", 0] for service in admitted} == {2}
    assert requests["made-up-39", "GET:/", 1] == 1
    refused = next(service for service in services if service not in admitted)
    more = [request(admitted[0], "/"), request(refused, "/")]
    again = write(tmp_path / "again", in_stream(more, 100))
    with Store(path, plan) as store:
        summaries.append(replay([again], NONE, store, caps=caps))
        requests = requests_of(store)
        stored = store.query(
            "SELECT sum(count) FROM internal.counters WHERE name = 'minute_entities'"
        ).fetchall()
    assert requests[admitted[0], "GET:/", 0] == 3
    dropped = sum(summary.counters.dropped["minute_entities"] for summary in summaries)
    assert sum(summary.counters.dropped.total() for summary in summaries) == dropped
    assert sum(summary.counters.logs for summary in summaries) == 83
    assert sum(requests.values()) + dropped == 83
    assert stored == [(dropped,)]


REPLAY = """
import re, sys
from pathlib import Path
from framewalk.engine import Entities, Store, load_plan, replay

with Store(sys.argv[2], load_plan()) as store:
    store.limit_memory()
    replay([sys.argv[1]], Entities.empty(), store)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))
"""


def test_many_endpoints_take_bounded_memory(tmp_path: Path) -> None:
    """The case of apache/skywalking 4755, 5044 and 6089: an id in each of 400,000 paths."""
    template = request("shop", "/item/0000000", 9)
    begin, end = template.split(b"0000000")
    minutes = [request("shop", "/item/0000000", minute) for minute in range(10)]
    rows = in_stream(
        minutes[number % 10].replace(b"0000000", f"{number:07}".encode())
        for number in range(400_000)
    )
    assert begin + b"0000009" + end == rows[9][3]
    capture = write(tmp_path / "capture", rows, 20_000)
    path = tmp_path / "store.duckdb"
    done = subprocess.run(
        [sys.executable, "-c", REPLAY, capture, path],
        env=os.environ | {"POLARS_MAX_THREADS": "2"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert int(done.stdout) * 1024 < 2**30
    with Store(path, load_plan()) as store:
        requests = requests_of(store)
        answer = store.query("SELECT * FROM metric_values LIMIT 3").fetchall()
    for minute in range(10):
        shop = {one: calls for (_, one, at), calls in requests.items() if at == minute}
        assert len(shop) == 3_001
        assert shop[OTHERS] == 37_000
    assert len(answer) == 3
