"""Messages with something wrong in them, made of real ones; and honest ones, which can be counted.

Nothing is filtered: what comes of a mutation is sent, whether it is a message or not.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import pyarrow as pa
from recording import Messages
from wire_bytes import LENGTH_DELIMITED, OVERFLOWING_LENGTHS, varint

from framewalk.engine.captures.format import CaptureReader
from framewalk.engine.captures.format import captures_in as segments
from framewalk.engine.wire import access_log_pb2 as pb

TESTS = Path(__file__).parent.parent
REAL = (
    TESTS.parent / "fixtures" / "captures" / "bookinfo",
    TESTS.parent / "fixtures" / "captures" / "boutique",
    TESTS / "rover" / "part1",
)

# Where hostile streams come from; Linux has all of 127.0.0.0/8.
ATTACKER = "127.0.0.66"

# Of each stream the first message in so many says again of which node it is.
NODE_EVERY = 40
_S = 10**9
_LARGE_BYTES = 3 * 2**20
_USUAL_BYTES = 16 * 1024
_LARGE_ONE_IN = 10_000

Field = tuple[int, int, int, int]


@cache
def real_messages(folder: Path, now_s: int) -> tuple[Messages, Messages]:
    """Return real messages, those that name a node apart; all is said to have happened just now."""
    nodes, others = [], []
    rows = [row for path in segments(folder) for row in _rows(path)]
    late_s = now_s - max(received_ns for received_ns, _ in rows) // _S
    for _, message in rows:
        read = pb.EBPFAccessLogMessage.FromString(message)
        if read.HasField("node"):
            read.node.bootTime.seconds += late_s
            nodes.append(read.SerializeToString())
        else:
            others.append(message)
    return nodes, others


def _rows(path: Path) -> Iterator[tuple[int, bytes]]:
    with CaptureReader(path) as reader:
        for batch in reader:
            received = batch.messages["received_at"].cast(pa.int64()).to_pylist()
            yield from zip(received, batch.messages["message"].to_pylist(), strict=True)


class Hostile:
    """Draws hostile messages: bytes that were changed, or fields of them."""

    def __init__(self, seed: int, now_s: int) -> None:
        self._draws = random.Random(seed)  # noqa: S311 - seeded on purpose
        self._now_s = now_s
        self._of_bytes = (self._flip, self._replace, self._cut, self._insert, self._delete)
        self._of_fields = (
            *(self._wrong_length, self._repeat, self._nest, self._renumber, self._extreme),
            *(self._drop, self._swap, self._own_flip),
        )

    def stream(self, messages: int) -> Messages:
        """Draw a stream, all of one capture."""
        self._nodes, self._others = real_messages(self._draws.choice(REAL), self._now_s)
        return [
            self._mutated(self._draws.choice(self._nodes if at % NODE_EVERY == 0 else self._others))
            for at in range(messages)
        ]

    def _mutated(self, message: bytes) -> bytes:
        drawn = self._draws.random()
        if drawn < 0.35:
            for _ in range(self._draws.choice((1, 1, 1, 2, 4))):
                message = self._draws.choice(self._of_bytes)(message)
            return message
        if drawn < 0.42:
            return self._splice(message)
        if drawn < 0.43:
            return self._draws.randbytes(self._draws.randrange(200))
        changed = self._in_field(message)
        return self._flip(changed) if drawn > 0.95 else changed

    # Bytes

    def _at(self, message: bytes) -> int:
        return self._draws.randrange(len(message) + 1)

    def _flip(self, message: bytes) -> bytes:
        if not message:
            return b"\x01"
        changed = bytearray(message)
        changed[self._draws.randrange(len(changed))] ^= 1 << self._draws.randrange(8)
        return bytes(changed)

    def _replace(self, message: bytes) -> bytes:
        at, count = self._at(message), self._draws.randint(1, 8)
        return message[:at] + self._draws.randbytes(count) + message[at + count :]

    def _cut(self, message: bytes) -> bytes:
        return message[: self._at(message)]

    def _insert(self, message: bytes) -> bytes:
        at = self._at(message)
        return message[:at] + self._draws.randbytes(self._draws.randint(1, 20)) + message[at:]

    def _delete(self, message: bytes) -> bytes:
        at = self._at(message)
        return message[:at] + message[at + self._draws.randint(1, 20) :]

    def _splice(self, message: bytes) -> bytes:
        other = self._draws.choice(self._others)
        if self._draws.random() < 0.3:
            return message + other
        return message[: self._at(message)] + other[self._at(other) :]

    # Fields, at any depth; what is around one fits it again

    def _in_field(self, message: bytes) -> bytes:
        read = fields(message)
        if not read:
            return self._insert(message)
        field = self._draws.choice(read)
        start, _, content, end = field
        if end > content and _is_delimited(message, field) and self._draws.random() < 0.7:
            inner = self._in_field(message[content:end])
            head = message[start : _length_at(message, start)]
            return message[:start] + head + varint(len(inner)) + inner + message[end:]
        return self._draws.choice(self._of_fields)(message, field)

    def _wrong_length(self, message: bytes, field: Field) -> bytes:
        start, number, content, end = field
        length = self._draws.choice(
            (
                self._draws.choice(OVERFLOWING_LENGTHS),
                2 ** self._draws.choice((7, 14, 28, 31, 32, 35, 63)) - self._draws.choice((0, 1)),
                max(end - content + self._draws.randint(-3, 3), 0),
            )
        )
        tag = varint(number << 3 | LENGTH_DELIMITED)
        rest = message[content:] if self._draws.random() < 0.5 else message[end:]
        return message[:start] + tag + varint(length) + rest

    def _repeat(self, message: bytes, field: Field) -> bytes:
        start, _, _, end = field
        is_large = self._draws.randrange(_LARGE_ONE_IN) == 0
        most = (_LARGE_BYTES if is_large else _USUAL_BYTES) // (end - start)
        return (
            message[:end]
            + message[start:end] * self._draws.randint(1, max(most, 1))
            + (message[end:])
        )

    def _nest(self, message: bytes, field: Field) -> bytes:
        start, number, _, end = field
        depth = self._draws.choice((2, 30, 99, 101, 500, 2_000))
        if self._draws.random() < 0.3:
            # Groups, which nobody has used for years and every parser knows.
            groups = varint(number << 3 | 3) * depth + varint(number << 3 | 4) * depth
            return message[:start] + groups + message[end:]
        nested = message[start:end]
        for _ in range(min(depth, 500)):
            nested = varint(number << 3 | LENGTH_DELIMITED) + varint(len(nested)) + nested
        return message[:start] + nested + message[end:]

    def _renumber(self, message: bytes, field: Field) -> bytes:
        start, number, content, end = field
        other = self._draws.choice((number, self._draws.randint(1, 8), 2**29 - 1))
        tag = varint(other << 3 | self._draws.randrange(8))
        return message[:start] + tag + message[content:end] + message[end:]

    def _extreme(self, message: bytes, field: Field) -> bytes:
        start, number, _, end = field
        low = self._draws.choice((0, 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1))
        value = (low + self._draws.randint(-2, 2)) % 2**64
        return message[:start] + varint(number << 3) + varint(value) + message[end:]

    def _drop(self, message: bytes, field: Field) -> bytes:
        return message[: field[0]] + message[field[3] :]

    def _swap(self, message: bytes, field: Field) -> bytes:
        """Put a text there, long or no UTF-8, or of other fields."""
        start, number, _, end = field
        text = self._draws.choice(
            (b"", b"x" * 200, b"\xff\xfe", "ä".encode() * 3_000, b"\0", self._draws.randbytes(30))
        )
        tag = varint(number << 3 | LENGTH_DELIMITED)
        return message[:start] + tag + varint(len(text)) + text + message[end:]

    def _own_flip(self, message: bytes, field: Field) -> bytes:
        start, _, content, end = field
        return (
            message[:content]
            + self._flip(message[content:end])
            + (message[end:] if end > content else message[start:])
        )


def fields(message: bytes) -> list[Field]:
    """Return the fields up to the first that is none: start, number, start of the value, end."""
    found: list[Field] = []
    at = 0
    try:
        while at < len(message):
            start = at
            tag, at = _varint(message, at)
            kind = tag & 7
            content = at
            if kind == 0:
                _, at = _varint(message, at)
            elif kind == 1:
                at += 8
            elif kind == LENGTH_DELIMITED:
                length, content = _varint(message, at)
                at = content + length
            elif kind == 5:
                at += 4
            else:
                break
            if at > len(message):
                break
            found.append((start, tag >> 3, content, at))
    except IndexError:
        pass
    return found


def _is_delimited(message: bytes, field: Field) -> bool:
    return _varint(message, field[0])[0] & 7 == LENGTH_DELIMITED


def _length_at(message: bytes, start: int) -> int:
    return _varint(message, start)[1]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


# The honest side

ENDPOINTS = 7


def honest_stream(client: str, number: int, messages: int, now_s: int) -> Messages:
    """Make a stream of a node and services that nobody else has: an HTTP log each, and connects.

    What differs from one stream of a client to the next is `number`.
    """
    made = []
    for at in range(messages):
        message = pb.EBPFAccessLogMessage()
        if at == 0:
            message.node.name = f"node-of-{client}"
            message.node.bootTime.seconds = now_s - 1_000
        message.connection.role = 1
        message.connection.protocol = 1
        for side, name in ((message.connection.local, "shop"), (message.connection.remote, "user")):
            side.kubernetes.serviceName = f"{name}.{client}"
            side.kubernetes.podName = f"{name}-{at % 3}.{client}"
            side.kubernetes.port = 8_080
        begin_ns = 900 * _S + number * 1_000 + at
        http = message.protocolLog.http
        http.startTime.offset.offset = begin_ns
        http.endTime.offset.offset = begin_ns + 5_000_000
        http.request.path = f"/{(number + at) % ENDPOINTS}"
        http.response.statusCode = 200
        accept = message.kernelLogs.add().accept
        accept.startTime.offset.offset = begin_ns
        accept.endTime.offset.offset = begin_ns + 1_000
        made.append(message.SerializeToString())
    return made


def honest_calls(streams: Sequence[tuple[int, int]]) -> dict[str, int]:
    """Return the calls of each endpoint, of streams with these numbers and lengths."""
    counted: Counter[str] = Counter()
    for number, messages in streams:
        for at in range(messages):
            counted[f"GET:/{(number + at) % ENDPOINTS}"] += 1
    return dict(counted)


def calls_query(client: str) -> str:
    """Return the SQL that counts them: a row for each endpoint, and one for the accepts."""
    return f"""
        SELECT endpoint AS name, sum(kubernetes_service_endpoint_http_call_cpm)::BIGINT AS calls
        FROM endpoint_minute WHERE service = 'shop.{client}' GROUP BY ALL
        UNION ALL
        SELECT 'accept', sum(kubernetes_service_accept_cpm)::BIGINT
        FROM service_minute WHERE service = 'shop.{client}' GROUP BY ALL
    """
