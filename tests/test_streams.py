"""Node and connection carried on within a stream, across batches, until an hour of silence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framewalk.engine.captures.format import CAPTURE_SCHEMA
from framewalk.engine.stages.decoding import decode
from framewalk.engine.stages.streams import SILENCE_LIMIT_NS, Carried, StreamContext, follow_streams
from framewalk.engine.wire import access_log_pb2 as pb

SECOND_NS = 10**9
HOUR_NS = 3600 * SECOND_NS
START_NS = 1_714_564_800 * SECOND_NS
DAY_NS = 24 * HOUR_NS

Belongs = tuple[str | None, str | None]
"""The cluster of the node and the service of the connection that a message belongs to."""

UNDECODABLE = b"\xff"


@dataclass(frozen=True)
class Said:
    """A message: what it says of node and connection, and when it was received."""

    stream: int
    node: str | None = None
    connection: str | None = None
    after_ns: int = 0
    undecodable: bool = False

    def serialized(self) -> bytes:
        message = pb.EBPFAccessLogMessage()
        if self.node is not None:
            message.node.clusterName = self.node
        if self.connection is not None:
            message.connection.local.kubernetes.serviceName = self.connection
        return message.SerializeToString() + (UNDECODABLE if self.undecodable else b"")


def test_a_message_belongs_to_the_last_node_and_connection_of_its_stream() -> None:
    messages = [
        Said(1, node="east", connection="cart"),
        Said(1),
        Said(1, connection="shop"),
        Said(1, node="west"),
        Said(1),
    ]
    assert_belong(
        messages,
        [
            ("east", "cart"),
            ("east", "cart"),
            ("east", "shop"),
            ("west", "shop"),
            ("west", "shop"),
        ],
    )


def test_streams_that_take_turns_do_not_mix() -> None:
    messages = [
        Said(1, node="east", connection="cart"),
        Said(2, node="west", connection="shop"),
        Said(1),
        Said(2),
        Said(1, connection="pay"),
        Said(2),
        Said(1),
    ]
    assert_belong(
        messages,
        [
            ("east", "cart"),
            ("west", "shop"),
            ("east", "cart"),
            ("west", "shop"),
            ("east", "pay"),
            ("west", "shop"),
            ("east", "pay"),
        ],
    )


def test_what_a_stream_has_not_said_is_missing() -> None:
    messages = [
        Said(1),
        Said(1, connection="cart"),
        Said(2, node="west"),
        Said(1),
        Said(2),
        Said(1, node="east"),
        Said(2**64 - 1),
    ]
    assert_belong(
        messages,
        [
            (None, None),
            (None, "cart"),
            ("west", None),
            (None, "cart"),
            ("west", None),
            ("east", "cart"),
            (None, None),
        ],
    )


def test_an_undecodable_message_changes_nothing() -> None:
    messages = [
        Said(1, node="east", connection="cart"),
        Said(1, node="west", connection="shop", undecodable=True),
        Said(1),
    ]
    assert_belong(messages, [("east", "cart"), ("east", "cart")])


@pytest.mark.parametrize(
    ("silent_ns", "belongs"),
    [
        (HOUR_NS, ("east", "cart")),
        (HOUR_NS + 1, (None, None)),
        (2 * HOUR_NS, (None, None)),
        (3 * DAY_NS, (None, None)),
    ],
)
def test_a_stream_is_over_after_more_than_an_hour(silent_ns: int, belongs: Belongs) -> None:
    messages = [
        Said(1, node="east", connection="cart"),
        Said(2, node="west", connection="shop"),
        Said(2, after_ns=silent_ns // 2),
        Said(1, after_ns=silent_ns),
    ]
    others = ("west", "shop") if silent_ns // 2 <= HOUR_NS else (None, None)
    assert_belong(messages, [("east", "cart"), ("west", "shop"), others, belongs])


def test_a_stream_that_speaks_every_hour_goes_on_for_days() -> None:
    messages = [Said(1, node="east", connection="cart")]
    messages += [Said(1, after_ns=hours * HOUR_NS) for hours in range(1, 6)]
    assert_belong(messages, [("east", "cart")] * 6)


def test_a_message_without_node_keeps_the_node_known() -> None:
    """Any message of the stream ends the silence, whatever it says."""
    messages = [
        Said(1, node="east", connection="cart"),
        Said(1, connection="shop", after_ns=HOUR_NS),
        Said(1, node="west", after_ns=2 * HOUR_NS),
        Said(1, after_ns=3 * HOUR_NS),
    ]
    assert_belong(
        messages, [("east", "cart"), ("east", "shop"), ("west", "shop"), ("west", "shop")]
    )


def test_a_stream_that_is_over_can_begin_anew() -> None:
    messages = [
        Said(1, node="east", connection="cart"),
        Said(1, after_ns=HOUR_NS + 1),
        Said(1, node="west", after_ns=HOUR_NS + 2),
        Said(1, after_ns=HOUR_NS + 3),
    ]
    assert_belong(messages, [("east", "cart"), (None, None), ("west", None), ("west", None)])


GAPS_NS = (0, 1, SECOND_NS, HOUR_NS // 2, HOUR_NS - 1, HOUR_NS, HOUR_NS + 1, DAY_NS)


@st.composite
def conversations(draw: st.DrawFn) -> list[Said]:
    """Draw messages of up to four streams, received one after the other."""
    messages: list[Said] = []
    after_ns = 0
    for _ in range(draw(st.integers(1, 14))):
        after_ns += draw(st.sampled_from(GAPS_NS))
        messages.append(
            Said(
                draw(st.sampled_from((0, 1, 2, 2**64 - 1))),
                draw(st.sampled_from((None, None, "east", "west", ""))),
                draw(st.sampled_from((None, None, "cart", "shop", ""))),
                after_ns,
                undecodable=draw(st.integers(0, 9)) == 0,
            )
        )
    return messages


@settings(max_examples=150)
@given(messages=conversations(), data=st.data())
def test_any_conversation_is_followed_as_a_plain_loop_does(
    messages: list[Said], data: st.DataObject
) -> None:
    places = data.draw(st.lists(st.integers(0, len(messages)), max_size=4).map(sorted))
    assert belonging(messages, places) == plainly_followed(messages)


def plainly_followed(messages: Sequence[Said]) -> list[Belongs]:
    """Follow streams one message at a time."""
    known: dict[int, Belongs] = {}
    heard_ns: dict[int, int] = {}
    found: list[Belongs] = []
    for message in messages:
        if message.undecodable:
            continue
        stream = message.stream
        silent_ns = message.after_ns - heard_ns.get(stream, message.after_ns)
        node, connection = known.get(stream, (None, None)) if silent_ns <= HOUR_NS else (None, None)
        node = node if message.node is None else message.node
        connection = connection if message.connection is None else message.connection
        known[stream], heard_ns[stream] = (node, connection), message.after_ns
        found.append((node, connection))
    return found


SHORT_STREAMS = 100_000
DAYS = 4


@pytest.mark.parametrize("batch_messages", [50_000, 2 * SHORT_STREAMS])
def test_what_is_carried_does_not_grow_with_the_number_of_streams(batch_messages: int) -> None:
    """Two messages in each of 100,000 streams, one stream every 3.456 s."""
    apart_ns = DAYS * DAY_NS // SHORT_STREAMS
    open_at_once = SILENCE_LIMIT_NS // apart_ns + 1
    capture = short_streams(apart_ns)
    carried, most, followed = Carried(), 0, 0
    for start in range(0, capture.num_rows, batch_messages):
        for context in contexts(capture.slice(start, batch_messages), carried):
            carried = context.carried
            assert carried.nodes is not None
            assert carried.connections is not None
            most = max(most, carried.nodes.height, carried.connections.height)
            followed += context.messages.drop_nulls().height
    assert followed == 2 * SHORT_STREAMS
    assert open_at_once // 2 < most <= open_at_once


def short_streams(apart_ns: int) -> pa.Table:
    message = Said(1, node="east", connection="cart").serialized()
    columns = {
        "stream": pl.int_range(SHORT_STREAMS, dtype=pl.UInt64, eager=True),
        "received_at": START_NS + apart_ns * pl.int_range(SHORT_STREAMS, eager=True),
    }
    first = pl.DataFrame(columns).with_columns(seq=pl.lit(0, pl.UInt32), message=pl.lit(message))
    second = first.with_columns(seq=pl.lit(1, pl.UInt32), message=pl.lit(b""))
    rows = pl.concat([first, second]).sort("received_at", "seq").to_arrow()
    return rows.select(CAPTURE_SCHEMA.names).cast(CAPTURE_SCHEMA)


def assert_belong(messages: Sequence[Said], want: list[Belongs]) -> None:
    """Assert where messages belong, however they are cut into batches."""
    places = range(1, len(messages))
    for count in range(len(messages)):
        for chosen in combinations(places, count):
            assert belonging(messages, chosen) == want, f"cut at {chosen}"


def belonging(messages: Sequence[Said], places: Sequence[int]) -> list[Belongs]:
    """Return where each decodable message belongs, cut into batches at these places."""
    carried = Carried()
    found: list[Belongs] = []
    for start, end in pairwise([0, *places, len(messages)]):
        for context in contexts(as_table(messages[start:end]), carried):
            carried = context.carried
            nodes = context.nodes["cluster_name"].gather(context.messages["node"])
            services = context.connections["local_service"].gather(context.messages["connection"])
            found += zip(nodes, services, strict=True)
    return found


def contexts(messages: pa.Table, carried: Carried) -> Iterator[StreamContext]:
    for decoded in decode(messages):
        for context in follow_streams(decoded.captured, decoded.nested, carried):
            carried = context.carried
            yield context


def as_table(messages: Sequence[Said]) -> pa.Table:
    columns = (
        [message.stream for message in messages],
        list(range(len(messages))),
        [START_NS + message.after_ns for message in messages],
        [message.serialized() for message in messages],
    )
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, CAPTURE_SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=CAPTURE_SCHEMA)
