"""When a connection is read from: it rests between reads, and its windows hold most streams."""

from __future__ import annotations

import asyncio

from http2_client import Http2Client, body_of
from recording import COLLECT, Start, on_uvicorn, recorded, stream

from framewalk.receiver.transports.uvicorn.flow import Flow

pytest_plugins = ["servers"]

WINDOW_BYTES = 2**17


class Reading(asyncio.Transport):
    """A transport that knows whether it is read from, and tells when that changes."""

    def __init__(self) -> None:
        super().__init__()
        self.is_read = True
        self.changed = asyncio.Event()

    def pause_reading(self) -> None:
        assert self.is_read
        self.is_read = False

    def resume_reading(self) -> None:
        assert not self.is_read
        self.is_read = True
        self.changed.set()


def test_a_connection_rests_whatever_else_holds_it_back() -> None:
    async def check() -> None:
        transport = Reading()
        flow = Flow(transport, asyncio.get_running_loop())
        flow.rest(1)
        flow.rest(1)
        assert not transport.is_read
        await transport.changed.wait()

        # What pauses meanwhile goes on after the rest.
        flow.rest(1)
        flow.pause_reading()
        flow.resume_reading()
        assert not transport.is_read
        transport.changed.clear()
        await transport.changed.wait()

        flow.pause_writing()
        flow.rest(2**20)
        flow.resume_reading()
        assert flow.read_paused
        flow.end()
        assert not transport.is_read
        flow.resume_writing()
        assert transport.is_read

    asyncio.run(asyncio.wait_for(check(), 60))


@on_uvicorn
def test_a_stream_may_come_as_far_as_its_window_without_being_read(start: Start) -> None:
    messages = stream("large", messages=120, size_bytes=1_000)
    server = start()
    with Http2Client(server.address) as client:
        call = client.open(COLLECT)
        while client.h2.local_flow_control_window(call) < WINDOW_BYTES:
            client.receive()
        content = body_of(messages)
        assert 2**16 < len(content) < WINDOW_BYTES
        client.send(call, content, end=True)
        assert client.wait_for(call).status == "0"
    assert recorded(server.spool) == [messages]
