"""gRPC's frames out of the chunks of a body."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable
from itertools import pairwise

import pytest
from http2_client import body_of, framed
from hypothesis import given
from hypothesis import strategies as st

from framewalk.receiver.transports.frames import CallError, FrameSplitter, Status, status_headers

MOST_BYTES = 1_000


@given(st.lists(st.binary(max_size=50), max_size=20), st.lists(st.integers(0, 400), max_size=30))
def test_messages_come_out_however_the_body_is_cut(messages: list[bytes], cuts: list[int]) -> None:
    body = body_of(messages)
    places = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    frames = FrameSplitter(MOST_BYTES)
    found: list[bytes] = []
    for start, end in pairwise(places):
        found += frames.feed(body[start:end])
        assert frames.pending_bytes == len(body[:end]) - len(body_of(found))
    frames.end()
    assert found == messages


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5), st.data())
def test_a_body_that_ends_inside_of_a_message_is_told(
    messages: list[bytes], data: st.DataObject
) -> None:
    body = body_of(messages)
    whole = [len(body_of(messages[:count])) for count in range(len(messages) + 1)]
    size = data.draw(st.integers(0, len(body)).filter(lambda size: size not in whole))
    frames = FrameSplitter(MOST_BYTES)
    frames.feed(body[:size])
    with pytest.raises(CallError, match="inside of a message") as caught:
        frames.end()
    assert caught.value.status is Status.INTERNAL


def test_a_message_too_large_is_known_by_its_prefix() -> None:
    assert FrameSplitter(MOST_BYTES).feed(framed(b"x" * MOST_BYTES)) == [b"x" * MOST_BYTES]
    frames = FrameSplitter(MOST_BYTES)
    assert frames.feed(framed(b"x" * (MOST_BYTES + 1))[:4]) == []
    with pytest.raises(CallError, match="1001 bytes or more, 1000 are the most") as caught:
        frames.feed(framed(b"x" * (MOST_BYTES + 1))[4:5])
    assert caught.value.status is Status.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("encoding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)]
)
def test_compressed_messages(encoding: bytes, compress: Callable[[bytes], bytes]) -> None:
    body = framed(compress(b"a" * MOST_BYTES), 1) + framed(b"plain") + framed(compress(b""), 1)
    assert inflated(FrameSplitter(MOST_BYTES, encoding), body) == [b"a" * MOST_BYTES, b"plain", b""]
    bomb = framed(compress(b"a" * 100_000), 1)
    assert len(bomb) < MOST_BYTES
    for wrong, status in (
        (bomb, Status.RESOURCE_EXHAUSTED),
        (framed(compress(b"a" * 50)[:-6], 1), Status.INTERNAL),
        (framed(b"not compressed at all", 1), Status.INTERNAL),
        (framed(b"", 7), Status.INTERNAL),
    ):
        with pytest.raises(CallError) as caught:
            inflated(FrameSplitter(MOST_BYTES, encoding), wrong)
        assert caught.value.status is status
    for unknown in (b"br", b"identity", b"", b"\xff"):
        with pytest.raises(CallError, match="use gzip or none") as caught:
            FrameSplitter(MOST_BYTES, unknown).feed(framed(compress(b"a"), 1))
        assert caught.value.status is Status.UNIMPLEMENTED


def inflated(frames: FrameSplitter, body: bytes) -> list[bytes]:
    """The messages of a body, and a check that no step makes more than it said."""
    messages = frames.feed(body)
    inflation = frames.inflation(messages)
    is_done = inflation is None
    while inflation is not None and not is_done:
        most_bytes = inflation.size_bytes + inflation.next_bytes
        is_done = inflation.step()
        assert inflation.size_bytes <= most_bytes
    return messages


@pytest.mark.parametrize(
    ("encoding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)]
)
@given(
    contents=st.lists(
        st.tuples(st.binary(max_size=40), st.sampled_from([1, 50, 9_000, 300_000]), st.booleans()),
        max_size=4,
    )
)
def test_messages_are_inflated_in_steps(
    encoding: bytes, compress: Callable[[bytes], bytes], contents: list[tuple[bytes, int, bool]]
) -> None:
    # Noise of a fixed kind keeps large ones from being denser than is taken.
    noise = random.Random(1).randbytes(2**15)  # noqa: S311 - of a test
    messages = [part + (noise * 10)[:size] for part, size, _ in contents]
    body = b"".join(
        framed(compress(message), 1) if is_packed else framed(message)
        for message, (_, _, is_packed) in zip(messages, contents, strict=True)
    )
    assert inflated(FrameSplitter(2**20, encoding), body) == messages


def test_what_is_absurdly_dense_is_refused_and_never_held() -> None:
    one, many = [gzip.compress(bytes(size), 9) for size in (50 * 2**20, 60_000)]
    for body in (framed(one, 1), framed(many, 1) * 900):
        frames = FrameSplitter(50 * 2**20, b"gzip")
        messages = frames.feed(body)
        inflation = frames.inflation(messages)
        assert inflation is not None
        with pytest.raises(CallError, match="compressed to less than 1/100") as caught:
            any(inflation.step() for _ in range(1_000))
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert sum(map(len, messages)) <= inflation.size_bytes < 101 * len(body) + 2**20


def test_a_status_message_is_percent_encoded() -> None:
    assert status_headers(Status.OK) == [(b"grpc-status", b"0")]
    assert status_headers(Status.INTERNAL, "50% of ~/é\n'x'") == [
        (b"grpc-status", b"13"),
        (b"grpc-message", b"50%25 of ~/%C3%A9%0A'x'"),
    ]
