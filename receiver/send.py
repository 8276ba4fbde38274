"""Captures to a receiver, the way Rover sends (wire.md): one new `collect` call per stream.

A capture does not mark where a stream ends, and streams interleave. A stream counts as ended when
none of the next `WINDOW_MESSAGES` messages is of it, or the capture ends. So memory holds that
many messages, the streams that still go on, and the calls under way, however long the capture.
What comes of a stream after that goes as a call of its own, and is counted: a receiver cannot
tell whose it is, as node and connection stand only in the first messages of a stream.
"""

from __future__ import annotations

import ssl
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import grpc

from framewalk.engine.captures import CaptureReader
from framewalk.engine.errors import InputError
from framewalk.receiver.transports import COLLECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

WINDOW_MESSAGES: Final = 50_000
_STREAM_DEADLINE_S: Final = 20
_HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"
_HEALTH_DEADLINE_S: Final = 10
# No proxy stands between this machine and itself.
_OPTIONS: Final = (("grpc.enable_http_proxy", 0),)
_UNREACHABLE: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_UNREACHABLE_REMEDY: Final = (
    "check the address, that a receiver listens there, and that both sides use TLS or neither"
)


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Whom to trust (gRPC's own list of authorities where `ca` is None), and who to be."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where to send, and with what."""

    address: str
    tls: ClientTls | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class Sent:
    """What became of the streams; messages and bytes are those of acknowledged ones."""

    acknowledged: int = 0
    messages: int = 0
    size_bytes: int = 0
    # Streams by status, and what the receiver said to the first of each.
    refused: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    continued: int = 0
    warnings: list[str] = field(default_factory=list)


def send_captures(
    paths: Iterable[Path],
    receiver: Receiver,
    *,
    messages_per_s: float | None,
    at_once: int,
    on_progress: Callable[[Path, float, int], None],
) -> Sent:
    """Send every stream of the captures, and return what became of them.

    `on_progress` is told a capture, the bytes of it that are done, and its size. Raises InputError
    where nobody listens or the TLS files cannot be used.
    """
    pace = _Pace(messages_per_s)
    with _channel(receiver) as channel:
        _check_reachable(channel, receiver.address)
        calls = _Calls(channel, receiver.token, at_once)
        for path in paths:
            _send_capture(path, calls, pace, on_progress)
        calls.finish()
    return calls.sent


def _send_capture(
    path: Path, calls: _Calls, pace: _Pace, on_progress: Callable[[Path, float, int], None]
) -> None:
    started = 0
    with CaptureReader(path) as reader:
        for stream in _streams(reader):
            pace.wait(len(stream.messages))
            calls.start(stream)
            started += len(stream.messages)
            read = reader.position
            on_progress(path, read.offset_bytes * started / read.messages, reader.size_bytes)
        if reader.warning:
            calls.sent.warnings.append(reader.warning)


@dataclass(slots=True)
class _Stream:
    """Messages of one stream, and where the last one stands in the capture."""

    first_seq: int
    last_row: int = 0
    messages: list[bytes] = field(default_factory=list)


def _streams(reader: CaptureReader) -> Iterator[_Stream]:
    """Yield each stream when it counts as ended."""
    # The one whose last message is the longest ago comes first.
    open_streams: OrderedDict[int, _Stream] = OrderedDict()
    for row, (number, seq, message) in enumerate(_rows(reader)):
        stream = open_streams.setdefault(number, _Stream(seq))
        stream.messages.append(message)
        stream.last_row = row
        open_streams.move_to_end(number)
        oldest = next(iter(open_streams))
        if row - open_streams[oldest].last_row >= WINDOW_MESSAGES:
            yield open_streams.pop(oldest)
    while open_streams:
        yield open_streams.popitem(last=False)[1]


def _rows(reader: CaptureReader) -> Iterator[tuple[int, int, bytes]]:
    for batch in reader:
        columns = (batch.messages[name].to_pylist() for name in ("stream", "seq", "message"))
        yield from zip(*columns, strict=True)


class _Pace:
    """Lets streams start so that no more than so many messages go a second.

    A stream itself goes at once, as Rover's do: slowed down, it would pass its deadline.
    """

    def __init__(self, messages_per_s: float | None) -> None:
        self._messages_per_s = messages_per_s
        self._next_s = 0.0

    def wait(self, messages: int) -> None:
        """Wait until a stream of this many messages may start."""
        if self._messages_per_s is None:
            return
        now_s = time.monotonic()
        time.sleep(max(0.0, self._next_s - now_s))
        self._next_s = max(self._next_s, now_s) + messages / self._messages_per_s


class _Calls:
    """The calls under way, never more than `at_once`, and what became of the others."""

    def __init__(self, channel: grpc.Channel, token: str | None, at_once: int) -> None:
        self.sent = Sent()
        self._collect = channel.stream_unary(COLLECT, None, None)
        self._metadata = [("authentication", token)] if token else []
        self._at_once = at_once
        self._open = 0
        self._ended: SimpleQueue[tuple[_Stream, Any]] = SimpleQueue()

    def start(self, stream: _Stream) -> None:
        """Start a call as soon as there is room for one more."""
        self._wait_for_room(self._at_once - 1)
        self.sent.continued += stream.first_seq > 0
        call = self._collect.future(
            iter(stream.messages), timeout=_STREAM_DEADLINE_S, metadata=self._metadata
        )
        self._open += 1
        call.add_done_callback(lambda ended: self._ended.put((stream, ended)))

    def finish(self) -> None:
        """Wait for every call."""
        self._wait_for_room(0)

    def _wait_for_room(self, most_open: int) -> None:
        while self._open > most_open:
            self._count(*self._ended.get())
            self._open -= 1

    def _count(self, stream: _Stream, ended: Any) -> None:  # noqa: ANN401 - grpc has no types
        if ended.code() is grpc.StatusCode.OK:
            self.sent.acknowledged += 1
            self.sent.messages += len(stream.messages)
            self.sent.size_bytes += sum(map(len, stream.messages))
            return
        status = ended.code().name
        self.sent.refused[status] += 1
        self.sent.reasons.setdefault(status, _one_line(ended.details()))


def _check_reachable(channel: grpc.Channel, address: str) -> None:
    """Ask for health: any answer will do, so a receiver need not know the question."""
    try:
        channel.unary_unary(_HEALTH_CHECK, None, None)(b"", timeout=_HEALTH_DEADLINE_S)
    except grpc.RpcError as error:
        if error.code() in _UNREACHABLE:
            reason = _one_line(error.details()).rpartition("last error: ")[2]
            problem = f"no receiver can be reached here ({reason})"
            raise InputError(address, problem, _UNREACHABLE_REMEDY) from error


def _one_line(details: str | None) -> str:
    return " ".join((details or "").split())


def _channel(receiver: Receiver) -> grpc.Channel:
    # Named as DNS: without it, some host names would be read as another kind of address.
    target = f"dns:///{receiver.address}"
    if receiver.tls is None:
        return grpc.insecure_channel(target, _OPTIONS)
    return grpc.secure_channel(target, _credentials(receiver.tls), _OPTIONS)


def _credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    _check_files(tls)
    files = (tls.ca, tls.key, tls.certificate)
    return grpc.ssl_channel_credentials(*(path and path.read_bytes() for path in files))


def _check_files(tls: ClientTls) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca is not None:
        # Read first: its error names the file.
        tls.ca.read_bytes()
        try:
            context.load_verify_locations(tls.ca)
        except ssl.SSLError as error:
            raise InputError(tls.ca, "this is no PEM certificate", "give one") from error
    if tls.certificate is not None and tls.key is not None:
        tls.certificate.read_bytes()
        tls.key.read_bytes()
        try:
            # A key under a password is of no use: nobody is asked for it.
            context.load_cert_chain(tls.certificate, tls.key, password="")
        except ssl.SSLError as error:
            problem = f"this is no PEM certificate of the key {tls.key}"
            raise InputError(tls.certificate, problem, "give a key and its certificate") from error
