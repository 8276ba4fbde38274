"""A large message counts as it would if it were decoded as a whole, in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from batches import Row, as_batch
from comparison import assert_same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import connection_messages, http_logs, kernel_logs
from wire_bytes import OVERFLOWING_LENGTHS, delimited, varint

from framewalk.engine import Entities, load_plan, partial
from framewalk.engine.captures.format import DIGEST_KEY, batch_digest
from framewalk.engine.oal.plan import Plan
from framewalk.engine.stages.splitting import MessageRefusedError, split
from framewalk.engine.wire import access_log_pb2 as pb

MIB = 2**20
# After all that is said to have happened, and before it.
RECEIVED_NS, EARLY_NS = 2 * 10**18, 10**18
NODE, CONNECTION, KERNEL_LOGS, PROTOCOL_LOG, UNKNOWN = 1, 2, 3, 4, 15
LONG = pytest.mark.long
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
# A field that nobody knows makes a message large, and changes nothing else.
PADDING = delimited(UNKNOWN, bytes(MIB))


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


@st.composite
def fields(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Draw top-level fields in any order, `node` and `connection` several times."""
    nodes = st.builds(
        node,
        st.sampled_from(("", "east", "west")),
        st.sampled_from((0, 1_700_000_000, 1_700_000_060)),
    )
    kinds = {
        NODE: nodes,
        CONNECTION: connection_messages(),
        KERNEL_LOGS: kernel_logs(),
        PROTOCOL_LOG: http_logs(),
    }
    numbers = draw(st.lists(st.sampled_from((1, 1, 2, 2, 3, 3, 3, 4)), max_size=9))
    return [(number, draw(kinds[number]).SerializeToString()) for number in numbers]


@pytest.fixture(scope="module")
def apart() -> Plan:
    """All metrics but those that look at kernel logs and protocol log together."""
    folder = Path(__file__).parent.parent / "queries" / "oal"
    return load_plan([path for path in folder.iterdir() if path.stem != "http_serving"])


@settings(max_examples=20, suppress_health_check=SLOW)
@given(drawn=fields(), part_bytes=st.integers(1, 200))
def test_parts_are_together_what_the_message_is(
    apart: Plan, drawn: list[tuple[int, bytes]], part_bytes: int
) -> None:
    message = b"".join(delimited(number, content) for number, content in drawn)
    follower = delimited(KERNEL_LOGS, b"\x22\x00")
    whole = partial([as_batch(rows([message, follower]))], Entities.empty(), apart)
    array = pa.array([message], pa.binary())
    parts = [part[0].as_py() for part in split(array, part_bytes).parts()]
    logs = sum(number == KERNEL_LOGS for number, _ in drawn)
    assert len(parts) <= max(logs, 1)
    found = partial([as_batch(rows([*parts, follower]))], Entities.empty(), apart)
    assert found.counters.messages == len(parts) + 1
    assert_same(apart, replace(found, counters=replace(found.counters, messages=2)), whole)


@settings(max_examples=10, suppress_health_check=SLOW)
@given(drawn=fields(), many=st.integers(1, 3))
def test_a_large_message_counts_as_a_small_one_does(
    plan: Plan, drawn: list[tuple[int, bytes]], many: int
) -> None:
    small = b"".join(delimited(number, content) for number, content in drawn)
    follower = delimited(KERNEL_LOGS, b"\x22\x00")
    want = partial([as_batch(rows([small, follower]))], Entities.empty(), plan)
    found = partial([as_batch(rows([small + PADDING * many, follower]))], Entities.empty(), plan)
    assert_same(plan, found, want)


def node(cluster: str, boot_s: int) -> pb.EBPFAccessLogNodeInfo:
    made = pb.EBPFAccessLogNodeInfo(clusterName=cluster)
    if boot_s:
        made.bootTime.seconds = boot_s
    return made


BAD_FIELDS = {
    "a kernel log that is cut": delimited(KERNEL_LOGS, b"\x22\x05"),
    "a name that is no UTF-8": delimited(NODE, delimited(4, b"\xff")),
    "a length that overflows at the top": varint(3 << 3 | 2) + varint(OVERFLOWING_LENGTHS[0]),
    "a length that overflows in a log": delimited(
        KERNEL_LOGS, b"\x22" + varint(OVERFLOWING_LENGTHS[-1])
    ),
    "the end of a tag": b"\x80",
}


@pytest.mark.parametrize("bad", BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_a_bad_part_makes_the_whole_message_undecodable(plan: Plan, bad: bytes) -> None:
    """Its node and its connection, which are in a good part, are not what the stream has said."""
    other = delimited(NODE, delimited(4, b"other")) + delimited(KERNEL_LOGS, b"\x22\x00") * (
        2 * MIB // 4
    )
    follower = delimited(KERNEL_LOGS, b"\x22\x00")
    found = partial([as_batch(rows([other + bad, follower]))], Entities.empty(), plan)
    assert found.counters.messages == 2
    assert found.counters.logs == 1
    assert found.counters.dropped == {"no_node": 1}
    assert found.counters.quality == Counter(undecodable_message=1)


@pytest.mark.parametrize("number", [NODE, CONNECTION, KERNEL_LOGS, PROTOCOL_LOG])
def test_a_field_that_is_too_large_makes_a_message_oversized(plan: Plan, number: int) -> None:
    unknown = delimited(UNKNOWN, bytes(MIB))
    found = partial([as_batch(rows([delimited(number, unknown)]))], Entities.empty(), plan)
    assert found.counters.messages == 1
    assert found.counters.logs == 0
    assert found.counters.quality == Counter(oversized_message=1)
    with pytest.raises(MessageRefusedError, match="oversized_message"):
        split(pa.array([delimited(number, unknown)], pa.binary()))


# What each takes as a whole: 1,450 MB and more, or it does not come to an end.
MEMORY_LIMIT_BYTES = 1_000_000_000
REPLAY = """
import re, sys
from pathlib import Path
from framewalk.engine import Entities, Store, load_plan
from framewalk.engine.caps import Caps
from framewalk.engine.runs import SpoolFollower

told = 0
def count():
    global told
    told += 1

with Store(sys.argv[2], load_plan()) as store:
    store.limit_memory()
    store.connection.execute("SET enable_progress_bar = false")
    follower = SpoolFollower(Path(sys.argv[1]), store, 0, "~")
    if sys.argv[3] == "without caps":
        follower.caps = Caps(2**40, 2**40, 2**40, 2**40)
    flushed = [one.counters for one in follower.follow(Entities.empty(), 0, on_progress=count)]
most_kib = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)
logs, dropped = (sum(one) for one in zip(*((one.logs, one.dropped.total()) for one in flushed)))
print(logs, dropped, most_kib, told)
"""


def empty_logs() -> Iterator[bytes]:
    """One message of four million logs of four bytes."""
    yield said().SerializeToString() + delimited(KERNEL_LOGS, b"\x22\x00") * 4_000_000


def logs_of_many() -> Iterator[bytes]:
    """Messages of 32 KB with logs of two bytes, which have no operation."""
    for _ in range(200):
        yield said().SerializeToString() + delimited(KERNEL_LOGS, b"") * 16_000


def own_minutes() -> Iterator[bytes]:
    """One message of 300,000 logs, each in a minute of its own."""
    message = said()
    for number in range(300_000):
        message.kernelLogs.add().read.startTime.offset.offset = number * 60 * 10**9
    yield message.SerializeToString()


def own_services() -> Iterator[bytes]:
    """A stream of 150,000 services."""
    for number in range(150_000):
        message = said()
        message.node.name = f"node-{number % 2}"
        message.connection.local.kubernetes.serviceName = f"service-{number}"
        message.kernelLogs.add().read.SetInParent()
        yield message.SerializeToString()


def long_names() -> Iterator[bytes]:
    """A cluster's name of half a megabyte for many connections."""
    message = said()
    message.node.clusterName = "c" * (MIB // 2)
    message.node.policy.excludeNamespaces.extend(f"n{number}" for number in range(20_000))
    yield message.SerializeToString()
    for number in range(4_000):
        other = pb.EBPFAccessLogMessage(connection=said().connection)
        other.connection.remote.ip.host = f"10.0.{number // 250}.{number % 250}"
        other.kernelLogs.add().read.SetInParent()
        yield other.SerializeToString()


@pytest.mark.parametrize(
    ("sent", "logs", "dropped"),
    [
        ((empty_logs, RECEIVED_NS, ""), 4_000_000, 0),
        ((logs_of_many, RECEIVED_NS, ""), 3_200_000, 3_200_000),
        ((own_minutes, RECEIVED_NS, ""), 300_000, 300_000 - 64),
        pytest.param((own_minutes, RECEIVED_NS, "without caps"), 300_000, 0, marks=LONG),
        # Each is a service and a pod; there is a remote service, too.
        ((own_services, RECEIVED_NS, ""), 150_000, 150_000 - 4_999),
        pytest.param((own_services, RECEIVED_NS, "without caps"), 150_000, 0, marks=LONG),
        ((long_names, RECEIVED_NS, ""), 4_000, 0),
        # Ahead of their arrival: one node is wrong, two of two are right.
        pytest.param((own_minutes, EARLY_NS, "without caps"), 300_000, 300_000, marks=LONG),
        pytest.param((own_services, EARLY_NS, "without caps"), 150_000, 0, marks=LONG),
        pytest.param((own_services, EARLY_NS, ""), 150_000, 150_000 - 4_999, marks=LONG),
    ],
)
@pytest.mark.timeout(900)
def test_memory_is_bounded_and_life_is_told(
    tmp_path: Path,
    sent: tuple[Callable[[], Iterator[bytes]], int, str],
    logs: int,
    dropped: int,
) -> None:
    make, received_ns, caps = sent
    batch = as_batch(rows(list(make()), received_ns))
    segment = tmp_path / f"{10**18:020d}.capture.arrows"
    with (
        pa.OSFile(str(segment), "wb") as sink,
        pa.ipc.new_stream(sink, batch.schema) as writer,
    ):
        writer.write_batch(batch, custom_metadata={DIGEST_KEY: batch_digest(batch)})
    done = subprocess.run(
        [sys.executable, "-c", REPLAY, tmp_path, tmp_path / "store.duckdb", caps],
        env=os.environ | {"POLARS_MAX_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    *counted, most_kib, told = map(int, done.stdout.split())
    assert counted == [logs, dropped]
    assert most_kib * 1024 < MEMORY_LIMIT_BYTES
    assert told > 1 or logs < 10_000


def said() -> pb.EBPFAccessLogMessage:
    message = pb.EBPFAccessLogMessage()
    message.node.bootTime.seconds = 1_700_000_000
    message.connection.local.kubernetes.serviceName = "shop"
    message.connection.local.kubernetes.podName = "shop-1"
    message.connection.remote.kubernetes.serviceName = "cart"
    message.connection.remote.kubernetes.podName = "cart-1"
    return message


def rows(messages: Sequence[bytes], received_ns: int = RECEIVED_NS) -> list[Row]:
    return [(1, seq, received_ns, message) for seq, message in enumerate(messages)]
