"""uvicorn's HTTP/2 connection, with what a server of senders that never send twice needs.

Beyond uvicorn 0.54: a request that ends with its headers is seen to end, a caller that does not
read is not read from, a stream that is answered early is reset, a caller is sent to a new
connection in time (at a stop as well), and what is no HTTP/2 gets an answer.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import zttp
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.zttp_h2_impl import ZttpH2Protocol

from framewalk.receiver.transports.transport import REFUSED
from framewalk.receiver.transports.uvicorn.flow import Flow
from framewalk.receiver.transports.uvicorn.progress import PING, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uvicorn import Config
    from uvicorn.server import ServerState

    from framewalk.engine.telling import Tally
    from framewalk.receiver.transports.uvicorn.listening import Place, Places

_LOG: Final = logging.getLogger(__name__)
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# How a connection of TLS begins: a handshake, of version 3 whatever it will be.
_TLS_HELLO: Final = b"\x16\x03"
# How long a connection that was told to end may take to hear of it, and to end by itself.
_LINGER_S: Final = 0.5
_SAID_TO_OTHERS: Final = b"This is a gRPC server: it takes HTTP/2 only.\n"
_ANSWER_TO_OTHERS: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_SAID_TO_OTHERS), _SAID_TO_OTHERS)
)
# What zttp takes on a connection at once, and says in its settings.
_MOST_CALLS: Final = 128
# After 4,096 calls in all, or 256 that were reset, zttp ends a connection with those under way on
# it. Before that, the caller is sent to a new one; it may still give up what it has open.
_CALLS_IN_ALL: Final = 2048
_RESETS_IN_ALL: Final = 96
# The same for a peer of which connections were cut off just now: then at once.
_RESETS_OF_THE_BARRED: Final = 16
_READ_BUFFER: Final = memoryview(bytearray(2**18))
_SETTINGS_FRAME: Final = struct.Struct(">3sBBIHIHI")
_WINDOW_UPDATE_FRAME: Final = struct.Struct(">3sBBII")
_MAX_CONCURRENT_STREAMS: Final = 3
_INITIAL_WINDOW_SIZE: Final = 4
# zttp knows of 64 KiB, and gives back what it has read as it reads; so a caller that may send more
# before it has to wait never gets beyond what zttp knows of. Most streams fit in.
_ZTTP_WINDOW_BYTES: Final = 2**16 - 1
_WINDOW_BYTES: Final = 2**17
_NO_ERROR: Final = 0
_PROTOCOL_ERROR: Final = 1
_REFUSED_STREAM: Final = 7


@dataclass(frozen=True, slots=True)
class Shared:
    """What the connections of a server have in common.

    Each has at most `max_calls` open at once, and is given up when it does not go on for
    `patience_s`; `on_lost` hears of its end, and `tally` of what the caller does wrong.
    """

    max_calls: int | None
    patience_s: float
    tally: Tally
    places: Places
    on_lost: Callable[[], None]


class GrpcConnection(ZttpH2Protocol, asyncio.BufferedProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        loop: asyncio.AbstractEventLoop,
        shared: Shared,
        place: Place,
    ) -> None:
        super().__init__(config, server_state, {"peer": place.peer}, loop)
        self._shared = shared
        self._place = place
        self._max_calls = min(shared.max_calls or _MOST_CALLS, _MOST_CALLS)
        self._watch: asyncio.TimerHandle | None = None
        self._flow: Flow | None = None
        self._progress = Progress(shared.patience_s)
        self._is_stuck = False
        self._is_cut = False
        self._preface: bytes | None = b""
        self._is_ending = False
        self._calls = 0
        self._resets = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the caller to speak HTTP/2; one that says nothing is given up soon."""
        self.transport = transport
        self._place.end = self._cut
        self._place.is_idle = lambda: not self.cycles
        self.connections.add(self)
        self._watch = self.loop.call_later(self._shared.patience_s, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and say so."""
        super().connection_lost(exc)
        if self._watch is not None:
            self._watch.cancel()
        if self._flow is not None:
            self._flow.end()
        self._shared.places.leave(self._place)
        # It led back here, and memory would wait for the collector of garbage.
        self._place.forget()
        self._shared.on_lost()

    def get_buffer(self, _size_hint: int) -> memoryview:
        """Return where to read to: one place for all connections, as each is done with it at once.

        A new one for each time would be memory that the system has to make empty.
        """
        return _READ_BUFFER

    def buffer_updated(self, size_bytes: int) -> None:
        """Take in what was read."""
        self.data_received(bytes(_READ_BUFFER[:size_bytes]))

    def data_received(self, data: bytes) -> None:
        """Take in what comes; what cannot be HTTP/2 costs the connection, and no other."""
        if self._preface is not None:
            data = self._preface + data
            if not data.startswith(_PREFACE[: len(data)]):
                self._answer_to_others(data)
                return
            if len(data) < len(_PREFACE):
                self._preface = data
                return
            self._begin()
            self._progress.take(data[len(_PREFACE) :], self.loop.time())
        else:
            self._progress.take(data, self.loop.time())
        try:
            self._take(data)
        except Exception:  # noqa: BLE001 - whatever it is, other connections go on
            _LOG.exception("connection failed", extra={"facts": {"peer": self.client}})
            self._cut()
        if self.transport.is_closing() and not (self._is_ending or self._is_cut):
            # The caller broke the protocol: there is nothing to wait for.
            self._cut()

    def events(self) -> Iterator[zttp.Event]:  # type: ignore[override]
        """Yield what has come but for bodies, as long as the connection is not cut off.

        Bodies go to their calls here: a sender sends each message in a frame of its own.
        """
        # In local names: this loop runs once for each message.
        next_event, cycles, data, nothing = (
            self.conn.next_event,
            self.cycles,
            zttp.Data,
            zttp.NEED_DATA,
        )
        event = next_event()
        self._progress.has_event |= event is not nothing
        while event is not nothing:
            if type(event) is data:
                cycle = cycles.get(event.stream_id)
                if cycle is not None and not cycle.response_complete:
                    body = cycle.body
                    if not body:
                        cycle.message_event.set()
                    body += event.data
                    if len(body) > HIGH_WATER_LIMIT:
                        self.flow.pause_reading()
            else:
                yield event
                if self._is_cut:
                    return
            event = next_event()

    def _take(self, data: bytes) -> None:
        """Take in frames, as uvicorn does, but for how broken rules are told."""
        self._unset_keepalive_if_required()
        try:
            self.conn.receive_data(data)
            self.handle_events()
        except zttp.RemoteProtocolError:
            self._shared.tally.add(REFUSED, self._place.peer, "protocol_error")
            self.flush()
            self.transport.close()
            return
        self.flush()
        if any(cycle.more_body for cycle in self.cycles.values()):
            self._rest(len(data))
        is_idle = not self.cycles and self.timeout_keep_alive_task is None
        if is_idle and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _rest(self, received_bytes: int) -> None:
        """Let more of what is under way come before it is read."""
        if self._flow is not None and not self.transport.is_closing():
            self._flow.rest(received_bytes)

    def _cut(self) -> None:
        """Cut the connection off, with all that is under way on it and all that waits."""
        self._is_cut = True
        self.transport.abort()

    def _look(self) -> None:
        """Give a caller up that has stopped in the middle of something, or does not read."""
        was_stuck, self._is_stuck = self._is_stuck, False
        if self.transport.is_closing() or self._preface is not None:
            self._cut()
            return
        if self.flow.write_paused:
            self._is_stuck = True
            if was_stuck:
                self._cut()
                return
        elif not self.flow.read_paused:
            # Where we do not read, it is not the caller's fault.
            if not self._progress.goes_on(self.loop.time()):
                self._cut()
                return
            if self._progress.must_ask:
                self.transport.write(PING)
        next_s = self._progress.next_look_s(self.loop.time())
        self._watch = self.loop.call_later(next_s, self._look)

    def _begin(self) -> None:
        self._preface = None
        super().connection_made(self.transport)
        self.flow = self._flow = Flow(self.transport, self.loop)
        settings = (_INITIAL_WINDOW_SIZE, _WINDOW_BYTES, _MAX_CONCURRENT_STREAMS, self._max_calls)
        self.transport.write(
            _SETTINGS_FRAME.pack(b"\0\0\x0c", 4, 0, 0, *settings)
            + _WINDOW_UPDATE_FRAME.pack(b"\0\0\x04", 8, 0, 0, _WINDOW_BYTES - _ZTTP_WINDOW_BYTES)
        )

    def handle_request(self, event: zttp.Request) -> None:
        """Begin a call, or refuse it in a way that lets the caller try again elsewhere."""
        self._calls += 1
        if self._resets >= _RESETS_IN_ALL:
            # It was told to go: the calls that crossed the news are no more than may be open.
            self._count_reset()
        if self.shutdown_requested or len(self.cycles) >= self._max_calls:
            self._reset(event.stream_id, _REFUSED_STREAM)
        elif not (event.path.isascii() and event.method.isascii()):
            self._reset(event.stream_id, _PROTOCOL_ERROR)
        else:
            super().handle_request(event)
            if event.end_stream:
                # No event comes for the end of a request that has headers only.
                cycle = self.cycles[event.stream_id]
                cycle.more_body = False
                cycle.message_event.set()
        self._renew()

    def handle_rst_stream(self, event: zttp.RstStream) -> None:
        """End a call that its caller gave up; one that does nothing else is cut off."""
        super().handle_rst_stream(event)
        self._count_reset()
        self._renew()

    def _count_reset(self) -> None:
        self._resets += 1
        most = _RESETS_IN_ALL + _MOST_CALLS
        if self._shared.places.is_barred(self._place.peer, self.loop.time()):
            most = _RESETS_OF_THE_BARRED
        if self._resets >= most:
            self._shared.places.strike(self._place.peer, self.loop.time())
            self._cut()

    def _renew(self) -> None:
        is_worn = self._calls >= _CALLS_IN_ALL or self._resets >= _RESETS_IN_ALL
        if is_worn and not self.shutdown_requested:
            self.shutdown()

    def on_response_complete(self, stream_id: int) -> None:
        """End a call; a caller that is not done sending is told not to go on."""
        cycle = self.cycles.get(stream_id)
        is_cut = cycle is not None and cycle.more_body and not cycle.disconnected
        if is_cut and not self.transport.is_closing():
            self._reset(stream_id, _NO_ERROR)
            self.flush()
        super().on_response_complete(stream_id)

    def shutdown(self) -> None:
        """Say that no more calls are taken; the connection ends after the last one."""
        self.shutdown_requested = True
        if self._preface is not None:
            self.transport.close()
        elif not self.transport.is_closing():
            self.conn.close()
            self.flush()
            if not self.cycles:
                self._close_connection()

    def _close_connection(self) -> None:
        """Say that the connection ends, and end it when the caller had time to hear of it.

        Data that nobody reads would make the system reset the connection, and a call that crossed
        the news on its way would fail, where it could be made again.
        """
        if self._is_ending or self.transport.is_closing():
            return
        self._is_ending = True
        if not self.shutdown_requested:
            self.shutdown_requested = True
            self.conn.close()
            self.flush()
        self.loop.call_later(_LINGER_S, self.transport.close)

    def _reset(self, stream_id: int, error_code: int) -> None:
        self.conn.stream(stream_id).reset(error_code)

    def _answer_to_others(self, data: bytes) -> None:
        is_tls = data.startswith(_TLS_HELLO[: len(data)])
        reason = "tls_on_plain_text_port" if is_tls else "no_http2"
        self._shared.tally.add(REFUSED, self._place.peer, reason)
        self.transport.write(_ANSWER_TO_OTHERS)
        self.transport.close()
