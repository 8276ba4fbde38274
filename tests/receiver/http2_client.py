"""An HTTP/2 client on a socket, made of the h2 library: everything is in the test's hands."""

from __future__ import annotations

import socket
import ssl
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from recording import COLLECT, DEADLINE_S

Headers = list[tuple[str, str]]


@dataclass
class Answer:
    """What has come on a stream: headers and trailers together."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_ended: bool = False
    reset_code: int | None = None

    @property
    def status(self) -> str | None:
        return self.headers.get("grpc-status")


class Http2Client:
    """One connection. `gone` is set when the server says GOAWAY or closes it.

    `source` is the address that it comes from; Linux has all of 127.0.0.0/8.
    """

    def __init__(
        self, address: str, context: ssl.SSLContext | None = None, source: str = "127.0.0.1"
    ) -> None:
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), DEADLINE_S, (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
        config = h2.config.H2Configuration(header_encoding="ascii", validate_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.answers: dict[int, Answer] = {}
        self.pongs: list[bytes] = []
        self.gone = False
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def open(self, path: str = COLLECT, *, end: bool = False, **headers: str | None) -> int:
        """Send headers; a keyword adds one, or takes one away if it is None."""
        known: dict[str, str | None] = {
            ":method": "POST",
            ":scheme": "http",
            ":authority": "localhost",
            ":path": path,
            "content-type": "application/grpc",
            "te": "trailers",
        }
        known |= {name.replace("_", "-"): value for name, value in headers.items()}
        method = known.pop("method", None) or known[":method"]
        sent = [(name, value) for name, value in (known | {":method": method}).items() if value]
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        self.h2.send_headers(stream, sent, end_stream=end)
        self.flush()
        return stream

    def send(self, stream: int, body: bytes, *, end: bool = False) -> None:
        """Send a body as fast as flow control lets it go."""
        rest = memoryview(body)
        while rest:
            room_bytes = self.h2.local_flow_control_window(stream)
            room_bytes = min(room_bytes, self.h2.max_outbound_frame_size)
            if not room_bytes:
                assert not self.gone
                self.receive()
                continue
            self.h2.send_data(stream, bytes(rest[:room_bytes]))
            rest = rest[room_bytes:]
            self.flush()
        if end:
            self.h2.end_stream(stream)
            self.flush()

    def wait_for(self, stream: int) -> Answer:
        """Return the answer when it has ended, one way or another."""
        answer = self.answers[stream]
        while not answer.is_ended:
            assert not self.gone
            self.receive()
        return answer

    def call(self, path: str, body: bytes, **headers: str | None) -> Answer:
        """Send a whole request and return the answer."""
        stream = self.open(path, **headers)
        self.send(stream, body, end=True)
        return self.wait_for(stream)

    def receive(self) -> None:
        """Take in what has come, waiting for it."""
        try:
            content = self.socket.recv(65_536)
        except ConnectionError:
            content = b""
        if not content:
            self.gone = True
            return
        try:
            events = self.h2.receive_data(content)
        except h2.exceptions.ProtocolError:
            # After GOAWAY it takes nothing more.
            self.gone = True
            return
        for event in events:
            self._take(event)
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self.answers[event.stream_id].headers |= dict(event.headers)
            case h2.events.DataReceived():
                self.answers[event.stream_id].body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self.answers[event.stream_id].is_ended = True
            case h2.events.StreamReset():
                answer = self.answers[event.stream_id]
                answer.reset_code = int(event.error_code)
                answer.is_ended = True
            case h2.events.PingAckReceived():
                self.pongs.append(event.ping_data)
            case h2.events.ConnectionTerminated():
                self.gone = True
            case _:
                pass


def framed(message: bytes, flag: int = 0) -> bytes:
    """A message as it stands in gRPC's body."""
    return struct.pack(">BI", flag, len(message)) + message


def body_of(messages: list[bytes]) -> bytes:
    return b"".join(map(framed, messages))


def raw_frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """An HTTP/2 frame, well-formed or not."""
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content
