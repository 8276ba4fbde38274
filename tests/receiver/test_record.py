"""`framewalk record`: real processes, a real client, and what is on disk afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from faulty_disk import FaultyDisk
from grpc_health.v1 import health_pb2
from processes import free_port
from recording import (
    DEADLINE_S,
    TOKEN,
    Authority,
    Messages,
    OpenStream,
    Server,
    Start,
    collect,
    collect_over_tls,
    health,
    needs_openssl,
    on_both_transports,
    own_connection,
    recorded,
    refusal,
    stream,
    unary,
    wait_until,
)

from framewalk.engine.captures.format import CaptureReader
from framewalk.engine.captures.growing import segments_in as segments
from framewalk.engine.wire.process_pb2 import EBPFProcessReportList, EBPFReportProcessDownstream
from framewalk.receiver.intake.collect import Collector, Received
from framewalk.receiver.intake.limits import InFlight, LimitError
from framewalk.receiver.intake.pace import Pace
from framewalk.receiver.intake.telemetry import Telemetry
from framewalk.receiver.spool.spool import Spool, SpoolOptions

pytest_plugins = ["servers"]

# Receiving


@on_both_transports
def test_what_is_recorded_is_what_was_sent(start: Start) -> None:
    server = start()
    sent = [stream("a"), [b"\xff no message at all", b"", b"x" * 100_000], stream("b", 2_000)]
    for messages in sent:
        assert collect(server.address, messages) == b""
    assert collect(server.address, []) == b""
    assert recorded(server.spool) == sorted(sent)
    assert server.stop() == 0
    assert recorded(server.spool) == sorted(sent)
    assert len(segments(server.spool)) == 1
    with CaptureReader(segments(server.spool)[0]) as reader:
        assert sum(batch.messages.num_rows for batch in reader) == 2_008
        assert reader.warning is None


@on_both_transports
def test_two_hundred_streams_at_once(shared: Server) -> None:
    sent = [stream(f"many {number}", 20) for number in range(200)]
    with own_connection(shared) as one, own_connection(shared) as other:
        opened = [OpenStream((one, other)[number % 2], sent[number]) for number in range(200)]
        wait_until(lambda: shared.metrics()["framewalk_open_streams"] == 200)
        assert [one.finish() for one in opened] == [b""] * 200
    assert [one for one in recorded(shared.spool) if one[0].startswith(b"many")] == sorted(sent)


@on_both_transports
def test_a_stream_that_breaks_off_is_not_kept(shared: Server) -> None:
    before = shared.metrics()["k8s_als_error_streams"]
    with grpc.insecure_channel(shared.address) as channel:
        opened = [OpenStream(channel, stream(f"broken {number}")) for number in range(50)]
        wait_until(lambda: shared.metrics()["framewalk_in_flight_bytes"] >= 50 * 5 * 30)
        for one in opened[:25]:
            one.break_off()
        wait_until(lambda: shared.metrics()["framewalk_open_streams"] == 25)
        # The others lose their connection.
    for one in opened[25:]:
        one.break_off()
    wait_until(lambda: shared.metrics()["k8s_als_error_streams"] - before == 50)
    assert shared.metrics()["framewalk_in_flight_bytes"] == 0
    collect(shared.address, stream("whole"))
    assert stream("whole") in recorded(shared.spool)
    assert not [one for one in recorded(shared.spool) if one[0].startswith(b"broken")]


def test_an_acknowledged_stream_survives_and_counts_once(start: Start) -> None:
    for number in range(3):
        server = start()
        assert collect(server.address, stream("first")) == b""
        assert collect(server.address, stream(f"run {number}")) == b""
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        wanted = [stream("first"), *(stream(f"run {run}") for run in range(number + 1))]
        assert recorded(server.spool) == wanted


@contextmanager
def cancelled_at_the_end(threads: ThreadPoolExecutor) -> Iterator[None]:
    """If a test fails, nobody waits for what was not begun."""
    try:
        yield
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def test_sigkill_at_any_moment_loses_nothing_and_doubles_nothing(start: Start) -> None:
    sent = [stream(f"crash {number:03}", 20) for number in range(300)]
    left = iter(sent)
    acknowledged = 0
    servers = [start(FRAMEWALK_SPOOL_SEGMENT_BYTES="5000")]

    def send(messages: Messages) -> None:
        nonlocal acknowledged
        while True:
            server = servers[-1]
            try:
                collect(server.address, messages)
            except (grpc.RpcError, AssertionError):
                wait_until(lambda server=server: servers[-1] is not server)
            else:
                acknowledged += 1
                return

    with ThreadPoolExecutor(4) as senders, cancelled_at_the_end(senders):
        done = senders.map(send, left)
        for goal in (60, 120, 180, 240):
            wait_until(lambda goal=goal: acknowledged >= goal)
            servers[-1].stop(signal.SIGKILL)
            servers.append(start(FRAMEWALK_SPOOL_SEGMENT_BYTES="5000"))
        assert len(list(done)) == len(sent)
    assert servers[-1].stop() == 0
    assert recorded(servers[-1].spool) == sent


def test_a_torn_tail_is_told_at_the_start(start: Start) -> None:
    server = start()
    collect(server.address, stream("a"))
    collect(server.address, stream("b"))
    server.stop(signal.SIGKILL)
    path = segments(server.spool)[0]
    os.truncate(path, path.stat().st_size - 20)
    server = start()
    collect(server.address, stream("b"))
    assert "torn or damaged" in server.wait_for("spool segment is damaged")["warning"]
    assert server.wait_for("spool opened")["read_streams"] == "1"
    assert recorded(server.spool) == [stream("a"), stream("b")]


@on_both_transports
def test_garbage_instead_of_http2_is_cut_off(shared: Server) -> None:
    host, port = shared.address.split(":")
    for garbage in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01" * 100, b"\0" * 10_000):
        with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection:
            try:
                connection.sendall(garbage)
                while connection.recv(1024):
                    pass
            except ConnectionError:
                pass
    assert collect(shared.address, stream("after garbage")) == b""


# Limits


@on_both_transports
def test_over_a_limit_the_answer_is_no_at_once(start: Start) -> None:
    server = start(
        SW_CORE_GRPC_MAX_MESSAGE_SIZE="50000",
        FRAMEWALK_MAX_BYTES_IN_FLIGHT="60000",
        FRAMEWALK_MAX_CONCURRENT_STREAMS="2",
        SW_TELEMETRY_PROMETHEUS_PORT=str(free_port()),
    )
    code, details = refusal(server.address, [b"small", b"x" * 50_001])
    assert (code, "50001" in details) == ("RESOURCE_EXHAUSTED", True)
    with grpc.insecure_channel(server.address) as channel:
        held = [OpenStream(channel, [letter * 20_000]) for letter in (b"a", b"b")]
        wait_until(lambda: server.metrics()["framewalk_in_flight_bytes"] > 40_000)
        refused = ("RESOURCE_EXHAUSTED", "2 streams are open, the most allowed")
        assert refusal(server.address, [b"c"]) == refused
        assert held.pop().finish() == b""
        refused = ("RESOURCE_EXHAUSTED", "60,000 bytes are in flight, the most allowed")
        assert refusal(server.address, [b"d" * 45_000]) == refused
        assert collect(server.address, [b"e" * 30_000]) == b""
        assert held.pop().finish() == b""
    assert recorded(server.spool) == [[b"a" * 20_000], [b"b" * 20_000], [b"e" * 30_000]]
    counts = server.metrics()
    assert counts["k8s_als_in_count"] == 3
    assert counts["framewalk_in_bytes"] == 70_000
    assert counts["k8s_als_error_streams"] == 1
    assert counts['k8s_als_drop_count{reason="streams"}'] == 1
    assert counts['k8s_als_drop_count{reason="bytes_in_flight"}'] == 1
    assert counts["framewalk_in_flight_bytes"] == counts["framewalk_open_streams"] == 0


def test_over_the_budget_streams_are_refused_until_there_is_room(start: Start) -> None:
    server = start(FRAMEWALK_SPOOL_SEGMENT_BYTES="4000", FRAMEWALK_SPOOL_BUDGET_BYTES="8000")
    sent = [[os.urandom(3_000)] for _ in range(3)]
    collect(server.address, sent[0])
    collect(server.address, sent[1])
    code, details = refusal(server.address, sent[2])
    assert code == "RESOURCE_EXHAUSTED"
    assert details.endswith("the spool's budget of 8,000 bytes is used up")
    segments(server.spool)[0].unlink()
    assert collect(server.address, sent[2]) == b""
    assert recorded(server.spool) == [sent[2]]


def test_a_stream_that_takes_too_long_is_refused(tmp_path: Path) -> None:
    async def one_byte_and_no_more() -> AsyncIterator[Received]:
        yield Received([b"x"])
        await asyncio.get_running_loop().create_future()

    spool = Spool(SpoolOptions(tmp_path))
    in_flight = InFlight(10, 10_000)
    collector = Collector(spool, in_flight, Telemetry(), pace=Pace(longest_s=0.02))
    with pytest.raises(LimitError, match=r"the stream took longer than 0\.02 s"):
        asyncio.run(collector.collect(one_byte_and_no_more()))
    spool.close()
    assert (in_flight.streams, in_flight.size_bytes, segments(tmp_path)) == (0, 0, [])


# The other services


@on_both_transports
def test_every_process_gets_an_id_that_stays(shared: Server) -> None:
    report = EBPFProcessReportList(ebpfAgentID="agent")
    for pid, name in ((1, "a"), (2, "a"), (2, "b")):
        process = report.processes.add().k8sProcess
        process.pid = pid
        process.entity.layer, process.entity.processName = "K8S_SERVICE", name
    report.processes.add().hostProcess.pid = 1
    answers = [report_processes(shared, report) for _ in range(2)]
    assert answers[0] == answers[1]
    told = answers[0].processes
    assert [one.WhichOneof("process") for one in told] == ["k8sProcess"] * 3 + ["hostProcess"]
    assert [one.k8sProcess.pid for one in told[:3]] == [1, 2, 2]
    assert [one.k8sProcess.entityMetadata for one in told[:3]] == [
        one.k8sProcess.entity for one in report.processes[:3]
    ]
    assert len({one.processId for one in told} - {""}) == 4


def report_processes(server: Server, report: EBPFProcessReportList) -> EBPFReportProcessDownstream:
    answer = unary(server, "EBPFProcessService/reportProcesses", report.SerializeToString())
    return EBPFReportProcessDownstream.FromString(answer)


@on_both_transports
def test_rover_is_told_that_there_is_nothing_to_do(shared: Server) -> None:
    for method in (
        "EBPFProcessService/keepAlive",
        "EBPFProfilingService/queryTasks",
        "ContinuousProfilingService/queryPolicies",
        "ContinuousProfilingService/reportProfilingTask",
    ):
        assert unary(shared, method, b"anything") == b""
    with grpc.insecure_channel(shared.address) as channel:
        name = "/skywalking.v3.EBPFProfilingService/collectProfilingData"
        call = channel.stream_unary(name, None, None)
        assert call(iter([b"a", b"b"]), timeout=DEADLINE_S) == b""
    with pytest.raises(grpc.RpcError) as caught:
        unary(shared, "EBPFProcessService/reportProcesses", b"\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as caught:
        unary(shared, "Unknown/method", b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# Security


@on_both_transports
def test_without_the_token_nothing_is_taken(start: Start) -> None:
    server = start(SW_AUTHENTICATION=TOKEN)
    for wrong in (None, "wrong", TOKEN + "x", TOKEN[:-1]):
        code, details = refusal(server.address, stream("a"), wrong)
        assert (code, details) == ("UNAUTHENTICATED", "the authentication token is wrong")
    with pytest.raises(grpc.RpcError) as caught:
        unary(server, "EBPFProfilingService/queryTasks", b"")
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert health(server.address) == health_pb2.HealthCheckResponse.SERVING
    assert collect(server.address, stream("a"), TOKEN) == b""
    assert server.stop() == 0
    assert recorded(server.spool) == [stream("a")]
    assert server.find("ready")["token"] == "required"  # noqa: S105 - not the token itself
    assert TOKEN not in "".join(server.lines)


@on_both_transports
@needs_openssl
def test_tls_follows_its_files(start: Start, tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    key, chain = tmp_path / "tls.key", tmp_path / "tls.crt"
    for made, used in zip(old.make("server"), (key, chain), strict=True):
        shutil.copy(made, used)
    server = start(
        SW_CORE_GRPC_SSL_ENABLED="true",
        SW_CORE_GRPC_SSL_KEY_PATH=str(key),
        SW_CORE_GRPC_SSL_CERT_CHAIN_PATH=str(chain),
    )
    assert server.wait_for("ready")["tls"] == "server"
    assert collect_over_tls(server, old, stream("a")) == "OK"
    assert collect_over_tls(server, new, stream("b")) == "UNAVAILABLE"
    assert refusal(server.address, stream("c"))[0] == "UNAVAILABLE"
    new_key, new_chain = new.make("server")
    shutil.copy(new_key, key)
    # The certificate of the old key: the pair in use stays.
    assert collect_over_tls(server, old, stream("d")) == "OK"
    shutil.copy(new_chain, chain)
    assert collect_over_tls(server, new, stream("e")) == "OK"
    assert collect_over_tls(server, old, stream("f")) == "UNAVAILABLE"
    assert recorded(server.spool) == [stream("a"), stream("d"), stream("e")]
    assert server.wait_for("TLS files changed and cannot be used")
    assert server.wait_for("TLS files read again")


@on_both_transports
@needs_openssl
def test_mutual_tls_asks_for_a_certificate(start: Start, tmp_path: Path) -> None:
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    key, chain = ours.make("server")
    server = start(
        SW_CORE_GRPC_SSL_ENABLED="true",
        SW_CORE_GRPC_SSL_KEY_PATH=str(key),
        SW_CORE_GRPC_SSL_CERT_CHAIN_PATH=str(chain),
        SW_CORE_GRPC_SSL_TRUSTED_CA_PATH=str(ours.certificate),
    )
    assert server.wait_for("ready")["tls"] == "mutual"
    assert collect_over_tls(server, ours, stream("a")) == "UNAVAILABLE"
    assert collect_over_tls(server, ours, stream("b"), other.make("client")) == "UNAVAILABLE"
    assert collect_over_tls(server, ours, stream("c"), ours.make("client")) == "OK"
    assert recorded(server.spool) == [stream("c")]


@on_both_transports
@needs_openssl
def test_a_key_without_its_certificate_is_told_at_the_start(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    server = start(
        SW_CORE_GRPC_SSL_ENABLED="true",
        SW_CORE_GRPC_SSL_KEY_PATH=str(authority.make("a")[0]),
        SW_CORE_GRPC_SSL_CERT_CHAIN_PATH=str(authority.make("b")[1]),
    )
    assert server.wait() == 1
    assert server.lines[-1].startswith(f"error: {tmp_path}/ca/b.crt: this is no PEM certificate")


# Life cycle


@on_both_transports
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_what_is_open(start: Start, number: signal.Signals) -> None:
    server = start(FRAMEWALK_SPOOL_FSYNC="never", SW_TELEMETRY_PROMETHEUS_PORT=str(free_port()))
    collect(server.address, stream("before"))
    assert health(server.address) == health_pb2.HealthCheckResponse.SERVING
    with grpc.insecure_channel(server.address) as channel:
        opened = OpenStream(channel, stream("open", 500))
        wait_until(lambda: server.metrics()["framewalk_open_streams"] == 1)
        collect(server.address, stream("meanwhile"))
        server.process.send_signal(number)
        assert server.wait_for("draining")["reason"] == number.name
        assert opened.finish() == b""
    assert server.wait() == 0
    assert server.find("stopped")
    assert recorded(server.spool) == [stream("before"), stream("meanwhile"), stream("open", 500)]


@on_both_transports
def test_a_stop_does_not_wait_for_ever(start: Start) -> None:
    server = start(
        FRAMEWALK_DRAIN_TIMEOUT_SECONDS="0.2", SW_TELEMETRY_PROMETHEUS_PORT=str(free_port())
    )
    collect(server.address, stream("whole"))
    with grpc.insecure_channel(server.address) as channel:
        opened = OpenStream(channel, stream("open"))
        wait_until(lambda: server.metrics()["framewalk_in_flight_bytes"] > 5 * 30)
        assert server.stop() == 0
        opened.break_off()
    assert recorded(server.spool) == [stream("whole")]


@on_both_transports
def test_a_stop_does_not_wait_for_a_disk_that_hangs(start: Start, tmp_path: Path) -> None:
    with FaultyDisk(tmp_path / "disk") as disk:
        server = start(
            FRAMEWALK_DRAIN_TIMEOUT_SECONDS="0.2",
            SW_TELEMETRY_PROMETHEUS_PORT=str(free_port()),
            **disk.environment,
        )
        collect(server.address, stream("whole"))
        disk.hang()
        with own_connection(server) as channel:
            opened = OpenStream(channel, stream("given up"))
            opened.end()
            wait_until(lambda: len(recorded(server.spool)) == 2)
            assert server.stop() == 0
            # It was not told that it is on disk.
            assert opened.future.exception(DEADLINE_S) is not None
        assert server.wait_for("disk did not take all streams in time")
        assert server.find("stopped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_more_signals_change_nothing(start: Start, number: signal.Signals) -> None:
    server = start()
    collect(server.address, stream("a"))
    while server.process.poll() is None:
        server.process.send_signal(number)
        threading.Event().wait(0.0005)
    assert server.wait() == 0
    assert server.find("stopped")


@on_both_transports
def test_one_process_a_spool_and_one_a_port(start: Start, tmp_path: Path) -> None:
    first = start()
    port = int(first.wait_for("ready")["port"])
    second = start()
    assert second.wait() == 1
    assert second.lines[-1] == (
        f"error: {first.spool}: another process ({first.process.pid}) records into this spool; "
        "stop it, or name another spool\n"
    )
    third = start(tmp_path / "other", port)
    assert third.wait() == 1
    assert third.lines[-1] == (
        f"error: 127.0.0.1:{port}: this address cannot be listened on, or its port is in use; "
        "name another port or host\n"
    )
    assert collect(first.address, stream("a")) == b""


def test_a_wrong_configuration_is_told_before_anything_starts(start: Start) -> None:
    server = start(SW_CORE_GRPC_MAX_MESSAGE_SIZE="much")
    assert server.wait() == 1
    assert "core.default.maxMessageSize is not a whole number" in "".join(server.lines)
    assert not server.spool.exists()


@on_both_transports
def test_many_senders_are_all_counted_once(start: Start) -> None:
    server = start(
        FRAMEWALK_SPOOL_SEGMENT_BYTES="20000", SW_TELEMETRY_PROMETHEUS_PORT=str(free_port())
    )
    address = server.address
    sent = [stream(f"sender {number:03}", 50) for number in range(60)]
    with ThreadPoolExecutor(8) as senders:
        assert set(senders.map(lambda one: collect(address, one), [*sent, *sent])) == {b""}
    counts = server.metrics()
    assert counts["k8s_als_in_count"] == 60 * 50
    assert counts["framewalk_in_streams"] == counts["framewalk_repeated_streams"] == 60
    assert counts["k8s_als_in_latency_count"] == 60
    assert counts["framewalk_spool_flush_seconds_count"] <= 60
    assert counts["framewalk_spool_bytes"] == sum(
        path.stat().st_size for path in segments(server.spool)
    )
    assert counts["process_resident_memory_bytes"] > 0
    assert recorded(server.spool) == sent
