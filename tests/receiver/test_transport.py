"""The transports: clients of many kinds, statuses, TLS. What is here holds for both."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import signal
import ssl
import subprocess
import time
from pathlib import Path

import grpc
import grpc.aio
import grpclib.client
import grpclib.const
import grpclib.encoding.base
import grpclib.exceptions
import h2.errors
import h2.settings
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from http2_client import Http2Client, body_of, framed
from recording import (
    COLLECT,
    DEADLINE_S,
    Authority,
    Server,
    Start,
    call_of,
    collect,
    collect_over_tls,
    health,
    needs_openssl,
    on_both_transports,
    on_uvicorn,
    recorded,
    refusal,
    stream,
    wait_until,
)

from framewalk.engine.captures.growing import segments_in as segments

pytest_plugins = ["servers"]

QUERY = "/skywalking.v3.EBPFProfilingService/queryTasks"
HEALTH = "/grpc.health.v1.Health/Check"


def kept(server: Server, name: str) -> int:
    """How often the stream of this name is in the spool."""
    return recorded(server.spool).count(stream(name))


# Clients


@on_both_transports
def test_grpcio_asyncio(shared: Server) -> None:
    async def call() -> list[bytes]:
        async with grpc.aio.insecure_channel(shared.address) as channel:
            collecting = channel.stream_unary(COLLECT)
            query = channel.unary_unary(QUERY)
            calls = [collecting(iter(stream(f"aio {number}"))) for number in range(20)]
            return [await one for one in (*calls, query(b"x"))]

    assert asyncio.run(call()) == [b""] * 21
    assert [kept(shared, f"aio {number}") for number in range(20)] == [1] * 20


@on_both_transports
def test_grpclib(shared: Server) -> None:
    host, port = shared.address.split(":")

    async def call(path: str, messages: list[bytes]) -> bytes | None:
        channel = grpclib.client.Channel(host, int(port), codec=_Bytes())
        try:
            kind = grpclib.const.Cardinality.STREAM_UNARY
            async with channel.request(path, kind, bytes, bytes) as one:
                for message in messages:
                    await one.send_message(message)
                await one.end()
                return await one.recv_message()
        finally:
            channel.close()

    assert asyncio.run(call(COLLECT, stream("grpclib"))) == b""
    assert asyncio.run(call(QUERY, [b"x"])) == b""
    assert kept(shared, "grpclib") == 1
    with pytest.raises(grpclib.exceptions.GRPCError) as caught:
        asyncio.run(call("/Unknown/method", [b""]))
    assert caught.value.status is grpclib.const.Status.UNIMPLEMENTED


class _Bytes(grpclib.encoding.base.CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: bytes, message_type: object) -> bytes:  # noqa: ARG002 - as its base
        return message

    def decode(self, data: bytes, message_type: object) -> bytes:  # noqa: ARG002 - as its base
        return data


@on_both_transports
def test_h2(shared: Server) -> None:
    with Http2Client(shared.address) as client:
        answers = [client.call(COLLECT, body_of(stream(f"h2 {number}"))) for number in range(3)]
        answers.append(client.call(QUERY, framed(b"x")))
        answers.append(client.call(COLLECT, b""))
        empty = client.open(COLLECT, end=True)
        answers.append(client.wait_for(empty))
    assert [(one.status, one.body) for one in answers] == [("0", framed(b""))] * 6
    assert {one.headers[":status"] for one in answers} == {"200"}
    assert [kept(shared, f"h2 {number}") for number in range(3)] == [1] * 3


@on_uvicorn
def test_an_answer_does_not_wait_for_the_system(shared: Server) -> None:
    with Http2Client(shared.address) as client:

        def call_s() -> float:
            started_s = time.monotonic()
            assert client.call(QUERY, framed(b"x")).status == "0"
            return time.monotonic() - started_s

        # Held back until the other side acknowledges what came before, each takes 40 ms; on a
        # slow machine, some do.
        assert any(call_s() < 0.03 for _ in range(1_000))


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@on_both_transports
def test_curl(shared: Server, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(body_of(stream("curl")))
    headers = ["-H", "content-type: application/grpc+proto", "-H", "te: trailers"]
    command = ["curl", "-sv", "--http2-prior-knowledge", "--data-binary", "@body", *headers]
    done = subprocess.run(
        [*command, f"http://{shared.address}{COLLECT}"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=DEADLINE_S,
    )
    assert done.stdout == framed(b"")
    assert b"< grpc-status: 0" in done.stderr
    assert kept(shared, "curl") == 1


@on_uvicorn
def test_others_are_told_what_this_is(shared: Server) -> None:
    with Http2Client(shared.address) as client:
        got = client.wait_for(client.open("/", end=True, method="GET"))
        posted = client.call(COLLECT, body_of(stream("json")), content_type="application/json")
        almost = client.call(COLLECT, b"", content_type="application/grpc-web")
        assert (got.headers[":status"], b"gRPC" in got.body) == ("405", True)
        assert [one.headers[":status"] for one in (posted, almost)] == ["415"] * 2
    curl = ["curl", "-s", "--http1.1", f"http://{shared.address}/"]
    done = subprocess.run(curl, capture_output=True, check=True, timeout=DEADLINE_S)
    assert done.stdout == b"This is a gRPC server: it takes HTTP/2 only.\n"
    assert kept(shared, "json") == 0


# Statuses


@on_both_transports
def test_a_message_of_a_status_may_have_any_letter(start: Start, tmp_path: Path) -> None:
    spool = tmp_path / "spül 100%"
    server = start(spool, FRAMEWALK_SPOOL_SEGMENT_BYTES="4096", FRAMEWALK_SPOOL_BUDGET_BYTES="8192")
    code, details = refusal(server.address, [bytes(9_000)])
    assert code == "RESOURCE_EXHAUSTED"
    assert details == f"{spool}: the spool's budget of 8,192 bytes is used up"


@on_uvicorn
def test_without_te_the_status_is_in_the_headers(shared: Server) -> None:
    with Http2Client(shared.address) as client:
        fine = client.call(COLLECT, body_of(stream("no te")), te=None)
        wrong = client.call("/Unknown/method", b"", te=None)
    assert (fine.status, fine.body, kept(shared, "no te")) == ("0", framed(b""), 1)
    assert (wrong.status, wrong.body) == ("12", b"")
    assert wrong.headers["grpc-message"] == "there is no method /Unknown/method"


@on_both_transports
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_streams_are_kept_as_they_were(
    shared: Server, compression: grpc.Compression
) -> None:
    name = f"compressed {compression.name}"
    with grpc.insecure_channel(shared.address, compression=compression) as channel:
        messages = [*stream(name), bytes(100_000)]
        assert call_of(channel)(iter(messages), timeout=DEADLINE_S) == b""
    assert recorded(shared.spool).count(messages) == 1


@on_both_transports
def test_a_message_too_large_is_refused_by_its_prefix(start: Start) -> None:
    server = start(SW_CORE_GRPC_MAX_MESSAGE_SIZE="10000")
    with Http2Client(server.address) as client:
        opened = client.open()
        client.send(opened, framed(b"fits") + framed(bytes(10_001))[:5])
        assert client.wait_for(opened).status == "8"
        bomb = framed(gzip.compress(bytes(10_001)), 1)
        assert client.call(COLLECT, bomb, grpc_encoding="gzip").status == "8"
        unknown = client.call(COLLECT, framed(b"x", 1), grpc_encoding="br").status
        # grpcio calls it internal.
        assert unknown in {"12", "13"}
        assert client.call(COLLECT, body_of([bytes(10_000)])).status == "0"
    assert recorded(server.spool) == [[bytes(10_000)]]


@on_uvicorn
def test_a_stream_that_is_refused_early_does_not_starve_the_connection(start: Start) -> None:
    server = start(SW_CORE_GRPC_MAX_MESSAGE_SIZE="10000")
    with Http2Client(server.address) as client:
        for _ in range(50):
            opened = client.open()
            # More than the connection's window, over all: what nobody reads is given back.
            client.send(opened, framed(bytes(10_001)))
            answer = client.wait_for(opened)
            assert answer.status == "8"
            wait_until(lambda answer=answer: answer.reset_code == 0 or client.receive())
        assert client.call(COLLECT, body_of(stream("after"))).status == "0"
    assert recorded(server.spool) == [stream("after")]


# grpcio takes such a stream for a whole one, and does not say that there was more.
@on_uvicorn
def test_a_stream_that_ends_inside_of_a_message_is_not_kept(shared: Server) -> None:
    before = shared.metrics()["k8s_als_error_streams"]
    body = body_of(stream("cut short"))
    with Http2Client(shared.address) as client:
        answers = [client.call(COLLECT, body[:size]) for size in (3, 5, 20, len(body) - 1)]
        assert not {one.status for one in answers} & {"0"}
        for wrong in (b"", body_of([b"two", b"messages"])):
            assert client.call(QUERY, wrong).status not in {"0", None}
    assert not [one for one in recorded(shared.spool) if one[0].startswith(b"cut short")]
    wait_until(lambda: shared.metrics()["k8s_als_error_streams"] == before + 4)


@on_uvicorn
def test_a_message_that_is_still_coming_counts_as_in_flight(shared: Server) -> None:
    with Http2Client(shared.address) as client:
        opened = client.open()
        client.send(opened, framed(bytes(30_000))[:20_000])
        wait_until(lambda: shared.metrics()["framewalk_in_flight_bytes"] == 20_000)
        query = client.open(QUERY)
        client.send(query, framed(bytes(30_000))[:10_000])
        wait_until(lambda: shared.metrics()["framewalk_in_flight_bytes"] == 30_000)
    wait_until(lambda: shared.metrics()["framewalk_in_flight_bytes"] == 0)


@on_both_transports
def test_calls_over_the_limit_of_a_connection_are_refused(start: Start) -> None:
    server = start(SW_CORE_GRPC_MAX_CONCURRENT_CALL="3")
    with Http2Client(server.address) as client:
        wait_until(
            lambda: client.h2.remote_settings.max_concurrent_streams == 3 or client.receive()
        )
        opened = [client.open() for _ in range(3)]
        # What is not told of cannot be held back.
        client.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 4
        client.h2.remote_settings.acknowledge()
        assert client.wait_for(client.open()).reset_code == h2.errors.ErrorCodes.REFUSED_STREAM
        for number in opened:
            client.send(number, body_of(stream(f"within {number}")), end=True)
        assert {client.wait_for(number).status for number in opened} == {"0"}


# Health


@on_both_transports
def test_health_is_told_to_those_who_watch(start: Start) -> None:
    server = start(FRAMEWALK_DRAIN_TIMEOUT_SECONDS="1")
    assert health(server.address) == health_pb2.HealthCheckResponse.SERVING
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="x"), timeout=DEADLINE_S)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="x"), timeout=DEADLINE_S)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        unknown.cancel()
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert server.wait() == 0


# TLS


@pytest.fixture
def mutual(start: Start, tmp_path: Path) -> tuple[Server, Authority]:
    """A server that asks for certificates, and the authority of both sides."""
    authority = Authority(tmp_path / "ca")
    key, chain = authority.make("server")
    server = start(
        SW_CORE_GRPC_SSL_ENABLED="true",
        SW_CORE_GRPC_SSL_KEY_PATH=str(key),
        SW_CORE_GRPC_SSL_CERT_CHAIN_PATH=str(chain),
        SW_CORE_GRPC_SSL_TRUSTED_CA_PATH=str(authority.certificate),
    )
    return server, authority


@on_both_transports
@needs_openssl
def test_certificates_that_have_expired(mutual: tuple[Server, Authority]) -> None:
    server, authority = mutual
    client = authority.make("client")
    expired = authority.make("late client", days=-1)
    assert collect_over_tls(server, authority, stream("a"), expired) == "UNAVAILABLE"
    assert collect_over_tls(server, authority, stream("b"), client) == "OK"
    authority.make("server", days=-1)
    assert collect_over_tls(server, authority, stream("c"), client) == "UNAVAILABLE"
    authority.make("server")
    assert collect_over_tls(server, authority, stream("d"), client) == "OK"
    assert recorded(server.spool) == [stream("b"), stream("d")]


@on_both_transports
@needs_openssl
def test_an_authority_that_is_replaced_is_not_trusted_any_more(
    mutual: tuple[Server, Authority], tmp_path: Path
) -> None:
    server, old = mutual
    new = Authority(tmp_path / "new")
    before, after = old.make("client"), new.make("client")
    assert collect_over_tls(server, old, stream("a"), before) == "OK"
    assert collect_over_tls(server, old, stream("b"), after) == "UNAVAILABLE"
    trusts_server = old.certificate.read_bytes()
    shutil.copy(new.certificate, old.certificate)
    assert _over_tls(server, trusts_server, "c", after) == "OK"
    assert _over_tls(server, trusts_server, "d", before) == "UNAVAILABLE"
    assert recorded(server.spool) == [stream("a"), stream("c")]


def _over_tls(server: Server, roots: bytes, name: str, own: tuple[Path, Path]) -> str:
    key, chain = (path.read_bytes() for path in own)
    credentials = grpc.ssl_channel_credentials(roots, key, chain)
    with grpc.secure_channel(server.address, credentials) as channel:
        try:
            call_of(channel)(iter(stream(name)), timeout=DEADLINE_S)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


@on_uvicorn
@needs_openssl
def test_alpn_and_versions_of_tls(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    key, chain = authority.make("server")
    server = start(
        SW_CORE_GRPC_SSL_ENABLED="true",
        SW_CORE_GRPC_SSL_KEY_PATH=str(key),
        SW_CORE_GRPC_SSL_CERT_CHAIN_PATH=str(chain),
    )
    for versions in ((ssl.TLSVersion.TLSv1_2,) * 2, (ssl.TLSVersion.TLSv1_3,) * 2):
        context = ssl.create_default_context(cafile=authority.certificate)
        context.minimum_version, context.maximum_version = versions
        context.set_alpn_protocols(["h2", "http/1.1"])
        with Http2Client(server.address, context) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            assert client.socket.selected_alpn_protocol() == "h2"
            name = versions[0].name
            assert client.call(COLLECT, body_of(stream(name))).status == "0"
            assert kept(server, name) == 1
    assert len(segments(server.spool)) == 1
    assert collect_over_tls(server, authority, stream("grpcio")) == "OK"
    with pytest.raises(grpc.RpcError):
        collect(server.address, stream("plain text"))
