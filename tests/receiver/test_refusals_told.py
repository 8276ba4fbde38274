"""Who is refused is told: by reason and peer, a line a minute each, whatever the number."""

from __future__ import annotations

import logging
import resource
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from http2_client import Http2Client, raw_frame
from recording import (
    DEADLINE_S,
    TOKEN,
    Authority,
    Server,
    Start,
    call_of,
    collect,
    collect_over_tls,
    needs_openssl,
    on_both_transports,
    on_uvicorn,
    stream,
)
from unharmed import PREFACE, SETTINGS, connect, send_and_read, times_told

from framewalk.engine.telling import Tally

pytest_plugins = ["servers"]


class Clock:
    """Calls functions when their time has come."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, Callable[[], None]]] = []
        self._now_s = 0.0

    def later(self, delay_s: float, function: Callable[[], None]) -> None:
        self._waiting.append((self._now_s + delay_s, function))

    def advance(self, seconds: float) -> None:
        self._now_s += seconds
        due = [one for one in self._waiting if one[0] <= self._now_s]
        self._waiting = [one for one in self._waiting if one[0] > self._now_s]
        for _, function in due:
            function()

    @property
    def is_idle(self) -> bool:
        return not self._waiting


def test_the_first_is_told_at_once_and_the_others_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    tally = Tally(clock.later)
    for number in range(300):
        tally.add("refused", "10.0.0.1" if number % 3 else "10.0.0.2", "token")
    assert told(caplog) == [("token", 1, "10.0.0.2 (1)")]
    clock.advance(60)
    assert told(caplog)[1:] == [("token", 299, "10.0.0.1 (200), 10.0.0.2 (99)")]
    clock.advance(60)
    assert clock.is_idle
    tally.add("refused", "10.0.0.3", "token")
    assert told(caplog)[2:] == [("token", 1, "10.0.0.3 (1)")]


def test_peers_are_bounded_and_none_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    tally = Tally(clock.later)
    for number in range(100_001):
        tally.add("refused", "2001:db8::1" if number % 2 else f"peer {number}", "token")
    tally.finish()
    assert told(caplog)[1][:2] == ("token", 100_000)
    peers = told(caplog)[1][2]
    assert peers.startswith("2001:db8::1 (50,000), peer 2 (1), ")
    assert peers.endswith("others (49,996)")


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int, str]]:
    facts = [vars(one)["facts"] for one in caplog.records if one.levelno == logging.WARNING]
    return [(one["reason"], one["times"], str(one["peers"])) for one in facts]


@on_both_transports
def test_a_wrong_token_is_told_with_its_peer(start: Start) -> None:
    server = start(SW_AUTHENTICATION=TOKEN)
    for _ in range(5):
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError):
            call_of(channel)(iter(stream("a")), timeout=DEADLINE_S)
    assert collect(server.address, stream("a"), TOKEN) == b""
    assert server.stop() == 0
    assert times_told(server, "authentication") == 5
    assert server.wait_for("senders are refused")["peers"] == "127.0.0.1 (1)"


@on_both_transports
def test_a_limit_is_told_with_its_peer(start: Start) -> None:
    server = start(
        SW_RECEIVER_GRPC_MAX_MESSAGE_SIZE="1000",
        SW_CORE_GRPC_MAX_MESSAGE_SIZE="1000",
        FRAMEWALK_MAX_BYTES_IN_FLIGHT="2000",
    )
    for _ in range(3):
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError):
            call_of(channel)(iter([b"x" * 900] * 5), timeout=DEADLINE_S)
    assert server.stop() == 0
    assert times_told(server, "stream_bytes") == 3
    assert server.wait_for("senders are refused")["peers"] == "127.0.0.1 (1)"


@on_uvicorn
def test_broken_rules_of_http2_cost_a_line_a_minute(server: Server) -> None:
    """Case 19: DATA on no stream, over 2,000 new connections."""
    for _ in range(2_000):
        send_and_read(server, PREFACE + SETTINGS + raw_frame(0, 0, 0, b"x"))
    assert server.stop() == 0
    assert times_told(server, "protocol_error") == 2_000
    assert not [line for line in server.lines if "Traceback" in line]


@on_uvicorn
def test_tls_on_a_plain_port_is_named(server: Server) -> None:
    with connect(server) as client, pytest.raises((ssl.SSLError, OSError)):
        ssl.create_default_context().wrap_socket(client, server_hostname="localhost")
    assert server.stop() == 0
    assert times_told(server, "tls_on_plain_text_port") == 1


@needs_openssl
@on_uvicorn
def test_failed_handshakes_are_told_with_their_reason(start: Start, tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "tls"), Authority(tmp_path / "stranger")
    key, chain = authority.make("server")
    server = start(
        SW_CORE_GRPC_SSL_ENABLED="true",
        SW_CORE_GRPC_SSL_KEY_PATH=str(key),
        SW_CORE_GRPC_SSL_CERT_CHAIN_PATH=str(chain),
        SW_CORE_GRPC_SSL_TRUSTED_CA_PATH=str(authority.certificate),
    )
    own, foreign = authority.make("sender"), stranger.make("sender")
    for _ in range(20):
        send_and_read(server, PREFACE + SETTINGS)
    # A probe says nothing, and nothing is said about it.
    send_and_read(server, b"")
    shake_hands(server, authority, foreign)
    shake_hands(server, authority, None)
    shake_hands(server, stranger, own)
    assert collect_over_tls(server, authority, stream("a"), own) == "OK"
    assert server.stop() == 0
    assert times_told(server, "plain_text_on_tls_port") == 20
    assert times_told(server, "untrusted_certificate") == 1
    assert times_told(server, "no_certificate") == 1
    assert times_told(server, "sender_does_not_trust_this_server") == 1
    assert server.wait_for("senders are refused")["peers"] == "127.0.0.1 (1)"


def shake_hands(server: Server, trusted: Authority, own: tuple[Path, Path] | None) -> None:
    context = ssl.create_default_context(cafile=trusted.certificate)
    if own is not None:
        key, chain = own
        context.load_cert_chain(chain, key)
    context.set_alpn_protocols(["h2"])
    with suppress(OSError), Http2Client(server.address, context) as client:
        while not client.gone:
            client.receive()


@on_uvicorn
def test_exhausted_descriptors_cost_a_line_a_minute(server: Server) -> None:
    event = "connections wait, nothing is left to accept them with"
    assert collect(server.address, stream("a")) == b""
    most = 64
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (most, most))
    held = [connect(server) for _ in range(2 * most)]
    server.wait_for(event)
    for one in held:
        one.close()
    assert collect(server.address, stream("b")) == b""
    assert server.stop() == 0
    assert times_told(server, "too many open files") >= 1
    assert len(server.lines) < 50
