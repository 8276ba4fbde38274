"""Shares: one peer may have everything, and has to give it back to the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from faulty_disk import FaultyDisk
from http2_client import Http2Client, body_of
from processes import free_port
from recording import (
    OpenStream,
    Server,
    Start,
    collect,
    health,
    on_uvicorn,
    own_connection,
    recorded,
    refusal,
    stream,
    wait_until,
)

from framewalk.engine.peers import Peers
from framewalk.receiver.intake.collect import Collector, Received
from framewalk.receiver.intake.limits import InFlight, LimitError
from framewalk.receiver.intake.pace import Pace
from framewalk.receiver.intake.telemetry import Telemetry
from framewalk.receiver.spool.spool import Spool, SpoolOptions
from framewalk.server.config.load import load_config

pytest_plugins = ["servers"]

OTHER = "127.0.0.66"
WATCH = "/grpc.health.v1.Health/Watch"


@pytest.fixture
def small(start: Start) -> Server:
    """A server with room for 8 streams and 60,000 bytes."""
    return start_small(start)


def start_small(start: Start, **environment: str) -> Server:
    return start(
        SW_CORE_GRPC_MAX_MESSAGE_SIZE="50000",
        FRAMEWALK_MAX_BYTES_IN_FLIGHT="60000",
        FRAMEWALK_MAX_CONCURRENT_STREAMS="8",
        SW_TELEMETRY_PROMETHEUS_PORT=str(free_port()),
        **environment,
    )


def open_streams(server: Server, count: int) -> None:
    wait_until(lambda: server.metrics()["framewalk_open_streams"] == count)


def in_flight(server: Server) -> float:
    return server.metrics()["framewalk_in_flight_bytes"]


@on_uvicorn
def test_open_calls_of_one_peer_are_ended_for_another(small: Server) -> None:
    with Http2Client(small.address, source=OTHER) as greedy:
        calls = [greedy.open() for _ in range(8)]
        open_streams(small, 8)
        assert refusal_of(greedy, greedy.open()) == "8 streams are open, the most allowed"
        assert collect(small.address, stream("mine")) == b""
        assert collect(small.address, stream("mine too")) == b""
        # The oldest made room, and no more than was needed.
        assert refusal_of(greedy, calls[0]) == "8 streams are open, the most allowed"
        open_streams(small, 7)
        greedy.send(calls[7], body_of(stream("theirs")), end=True)
        assert greedy.wait_for(calls[7]).status == "0"
    assert recorded(small.spool) == sorted(map(stream, ("mine", "mine too", "theirs")))


@on_uvicorn
def test_bytes_of_one_peer_are_ended_for_another(small: Server) -> None:
    with Http2Client(small.address, source=OTHER) as greedy:
        large, little = greedy.open(), greedy.open()
        greedy.send(large, body_of([b"large" * 9_000]))
        greedy.send(little, body_of([b"little" * 1_000]))
        wait_until(lambda: in_flight(small) > 51_000)
        assert collect(small.address, stream("mine", 1, 25_000)) == b""
        assert refusal_of(greedy, large) == "60,000 bytes are in flight, the most allowed"
        greedy.send(little, b"", end=True)
        assert greedy.wait_for(little).status == "0"
        # Nobody else asks: all of it is there for one.
        again = greedy.open()
        greedy.send(again, body_of([b"again" * 9_900]), end=True)
        assert greedy.wait_for(again).status == "0"
    assert in_flight(small) == 0
    counts = small.metrics()
    assert counts['k8s_als_drop_count{reason="bytes_in_flight"}'] == 1
    assert counts["k8s_als_error_streams"] == 0


@on_uvicorn
def test_who_is_above_its_share_gets_nothing_of_others(small: Server) -> None:
    with Http2Client(small.address, source=OTHER) as other, own_connection(small) as channel:
        mine = OpenStream(channel, stream("mine", 1, 20_000))
        wait_until(lambda: in_flight(small) > 20_000)
        greedy = other.open()
        other.send(greedy, body_of([b"x" * 41_000]))
        assert refusal_of(other, greedy) == "60,000 bytes are in flight, the most allowed"
        assert mine.finish() == b""
    assert recorded(small.spool) == [stream("mine", 1, 20_000)]


@on_uvicorn
def test_watches_of_health_are_ended_for_a_probe(small: Server) -> None:
    with Http2Client(small.address, source=OTHER) as greedy:
        watches = [greedy.open(WATCH) for _ in range(8)]
        for watch in watches:
            greedy.send(watch, body_of([b""]), end=True)
        wait_until(lambda: greedy.receive() or all(greedy.answers[one].body for one in watches))
        assert health(small.address) == 1
        assert greedy.wait_for(watches[0]).status == "8"
        assert not greedy.answers[watches[-1]].is_ended
        # They take no room from streams.
        assert collect(small.address, stream("mine")) == b""


@on_uvicorn
def test_each_connection_of_a_trusted_proxy_counts_for_itself(start: Start) -> None:
    server = start_small(start, FRAMEWALK_TRUSTED_PROXIES="10.0.0.1,127.0.0.0/24")
    with Http2Client(server.address) as greedy:
        calls = [greedy.open() for _ in range(8)]
        open_streams(server, 8)
        assert collect(server.address, stream("mine")) == b""
        assert greedy.wait_for(calls[0]).status == "8"


@on_uvicorn
def test_one_address_is_one_peer_whatever_its_connections(small: Server) -> None:
    with Http2Client(small.address) as greedy:
        for _ in range(8):
            greedy.open()
        open_streams(small, 8)
        refused = ("RESOURCE_EXHAUSTED", "8 streams are open, the most allowed")
        assert refusal(small.address, stream("mine")) == refused


@on_uvicorn
def test_what_is_whole_is_waited_for(start: Start, tmp_path: Path) -> None:
    with FaultyDisk(tmp_path / "faulty") as disk:
        server = start_small(start, **disk.environment)
        assert collect(server.address, stream("first")) == b""
        disk.hang()
        with Http2Client(server.address, source=OTHER) as greedy, own_connection(server) as mine:
            whole = greedy.open()
            greedy.send(whole, body_of([b"x" * 45_000]), end=True)
            wait_until(lambda: in_flight(server) > 45_000)
            waiting = OpenStream(mine, stream("mine", 1, 20_000))
            waiting.end()
            open_streams(server, 2)
            # Who is above its share is told no, and not before who waits.
            more = greedy.open()
            greedy.send(more, body_of([b"y" * 15_000]))
            assert greedy.wait_for(more).status == "8"
            disk.heal()
            assert greedy.wait_for(whole).status == "0"
            assert waiting.finish() == b""
    assert len(recorded(server.spool)) == 3


def refusal_of(client: Http2Client, opened: int) -> str | None:
    answer = client.wait_for(opened)
    assert answer.status == "8"
    return answer.headers.get("grpc-message")


# How slow a stream may be


def test_the_shipped_pace_is_far_below_that_of_a_real_sender() -> None:
    pace = Pace()
    kib = 1024
    deadlines = [pace.ends_s(size * kib) for size in (0, 79, 160, 400, 500, 2**20)]
    assert deadlines == [30, 30, 50, 110, 120, 120]
    # A deadline only moves away.
    assert all(one <= other for one, other in pairwise(map(pace.ends_s, range(0, 10**6, 1000))))


def collected(tmp_path: Path, pace: Pace, chunks: list[tuple[float, int]]) -> None:
    """Collect a stream that comes in chunks: so many seconds of silence, then so many bytes."""

    async def received() -> AsyncIterator[Received]:
        for silence_s, size_bytes in chunks:
            await asyncio.sleep(silence_s)
            yield Received([bytes(size_bytes)])

    spool = Spool(SpoolOptions(tmp_path))
    in_flight = InFlight(10, 10**6)
    try:
        asyncio.run(Collector(spool, in_flight, Telemetry(), pace=pace).collect(received()))
    finally:
        spool.close()
        assert (in_flight.streams, in_flight.size_bytes) == (0, 0)


def test_a_slow_stream_is_ended_and_one_that_keeps_up_is_not(tmp_path: Path) -> None:
    pace = Pace(least_bytes_per_s=1_000, grace_s=0.1, whole_within_s=0.2, longest_s=60)
    with pytest.raises(LimitError, match="came slower than 1,000 bytes a second"):
        collected(tmp_path, pace, [(0, 1), (0.05, 1), (60, 1)])
    collected(tmp_path, pace, [(0, 60_000), (0.5, 1)])
    assert recorded(tmp_path) == [[bytes(60_000), bytes(1)]]
    with pytest.raises(LimitError, match=r"took longer than 0\.1 s"):
        collected(tmp_path, Pace(longest_s=0.1), [(0, 10**5), (60, 1)])


# Who is who


def test_names_of_peers() -> None:
    peers = Peers(
        load_config(
            None, {"FRAMEWALK_TRUSTED_PROXIES": "10.1.0.0/16, ::1, 2001:db8:0:7::/64"}
        ).grpc.trusted_proxies
    )
    names = {
        "10.2.0.1": "10.2.0.1",
        "::ffff:10.2.0.1": "10.2.0.1",
        "10.1.2.3": "10.1.2.3:7",
        "::ffff:10.1.2.3": "10.1.2.3:7",
        "::1": "::1:7",
        # Who has one address has all of its /64.
        "2001:db8::1": "2001:db8::/64",
        "2001:db8::ffff:ffff:ffff:ffff": "2001:db8::/64",
        "2001:db8:0:1::1": "2001:db8:0:1::/64",
        "fd00:1:2:3:4::5": "fd00:1:2:3::/64",
        "2001:db8:0:7::1": "2001:db8:0:7::1:7",
        # But every neighbour has one of these.
        "fe80::1%eth0": "fe80::1",
    }
    assert {address: peers.name(address, 7) for address in names} == names
    assert Peers().name("::1", 7) == "::1"
