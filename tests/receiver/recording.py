"""A running `framewalk record`, ways to call it, and what is in its spool."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prepared import Started
from processes import end_with_children
from server_logs import ServerLog, show_if_test_fails
from waiting import DEADLINE_S, wait_until

from framewalk.engine.captures.format import CaptureReader
from framewalk.engine.captures.format import captures_in as segments

FRAMEWALK = Path(sys.executable).with_name("framewalk")
COLLECT = "/skywalking.v3.EBPFAccessLogService/collect"
TOKEN = "s3cret token"  # noqa: S105 - of a test

Messages = list[bytes]


class Server:
    """A running `framewalk record`, with the lines that it logs."""

    command = "record"

    def __init__(
        self, spool: Path, port: int = 0, *options: str | Path, **environment: str
    ) -> None:
        self.spool = spool
        known = {"FRAMEWALK_LOG_FORMAT": "json", "SW_TELEMETRY": "none"}
        if "SW_TELEMETRY_PROMETHEUS_PORT" in environment:
            known["SW_TELEMETRY"] = "prometheus"
        arguments = [self.command, "--port", str(port), "--spool", spool, *options]
        given = os.environ | {"SW_CORE_GRPC_HOST": "127.0.0.1"} | known | environment
        self.process = _started(arguments, given)
        self.environment = environment
        self.lines: list[str] = []
        # Python waits for no daemon: a server that outlived its test would hold up all others.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        name = f"framewalk {self.command} ({self.process.pid})"
        has_ended = lambda: self.process.poll() is not None  # noqa: E731
        show_if_test_fails(ServerLog(name, lambda: list(self.lines), has_ended))

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            self.lines.extend(iter(stderr.readline, ""))

    def find(self, event: str) -> dict[str, str]:
        told = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return next((one for one in told if one["event"] == event), {})

    def wait_for(self, event: str) -> dict[str, str]:
        wait_until(lambda: self.find(event) or self.process.poll() is not None)
        if self.process.poll() is not None:
            self._reader.join(DEADLINE_S)
        assert self.find(event), event
        return self.find(event)

    @cached_property
    def address(self) -> str:
        return f"127.0.0.1:{self.wait_for('ready')['port']}"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it with its engine, whatever became of the test."""
        if self.process.poll() is None:
            end_with_children(self.process.pid)
        self.wait()

    def wait(self) -> int:
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return code

    def metrics(self) -> dict[str, float]:
        self.wait_for("ready")
        port = int(self.environment["SW_TELEMETRY_PROMETHEUS_PORT"])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        samples = [line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#"]
        return {name: float(value) for name, value in samples}


def _started(
    arguments: Sequence[str | Path], environment: dict[str, str]
) -> Started | subprocess.Popen[str]:
    if environment.get("PYTHONPATH") == os.environ.get("PYTHONPATH"):
        return Started(arguments, environment)
    # What Python runs at its start needs one.
    command = [FRAMEWALK, *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


Start = Callable[..., Server]
# `shared` is of the transport that a test names, so a test of it must name one.
on_uvicorn = pytest.mark.parametrize("transport", ["uvicorn"], scope="module")
on_both_transports = pytest.mark.parametrize("transport", ["uvicorn", "grpcio"], scope="module")


def call_of(channel: grpc.Channel) -> Any:  # noqa: ANN401 - grpc has no types
    return channel.stream_unary(COLLECT, None, None)


def own_connection(server: Server) -> grpc.Channel:
    """Return a channel that shares its connection with no other channel."""
    return grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)])


def collect(address: str, messages: Messages, token: str | None = None) -> bytes:
    metadata = [("authentication", token)] if token else []
    with grpc.insecure_channel(address) as channel:
        answer = call_of(channel)(iter(messages), timeout=DEADLINE_S, metadata=metadata)
    assert isinstance(answer, bytes)
    return answer


def refusal(address: str, messages: Messages, token: str | None = None) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        collect(address, messages, token)
    return caught.value.code().name, caught.value.details()


class OpenStream:
    """A stream that sends its messages and ends when told."""

    def __init__(self, channel: grpc.Channel, messages: Messages) -> None:
        self._messages = messages
        self._end = threading.Event()
        self.future = call_of(channel).future(self._send())

    def _send(self) -> Iterator[bytes]:
        yield from self._messages
        self._end.wait(DEADLINE_S)

    def end(self) -> None:
        self._end.set()

    def finish(self) -> bytes:
        self.end()
        return bytes(self.future.result(DEADLINE_S))

    def break_off(self) -> None:
        self.future.cancel()
        self._end.set()


class StuckPipe:
    """A pipe that is full of empty lines: who writes into it waits until it is read."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        fcntl.fcntl(self._reading, fcntl.F_SETPIPE_SZ, 4096)
        # Of its own, so that only this one does not wait.
        filling = os.open(f"/proc/self/fd/{self.writing}", os.O_WRONLY | os.O_NONBLOCK)
        with suppress(BlockingIOError):
            while os.write(filling, b"\n" * 64):
                pass
        os.close(filling)

    def read(self) -> bytes:
        """Read all, until every writer has ended."""
        os.close(self.writing)
        with os.fdopen(self._reading, "rb") as reading:
            return reading.read()


def stream(name: str, messages: int = 5, size_bytes: int = 30) -> Messages:
    return [f"{name}/{seq}/".encode().ljust(size_bytes, b".") for seq in range(messages)]


def recorded(spool: Path) -> list[Messages]:
    """All streams in the spool, sorted, after a check that each counts its messages from 0."""
    streams: dict[tuple[Path, int], Messages] = {}
    for path in segments(spool):
        with CaptureReader(path) as reader:
            for batch in reader:
                columns = [batch.messages[name].to_pylist() for name in ("stream", "seq")]
                rows = zip(*columns, batch.messages["message"].to_pylist(), strict=True)
                for number, seq, message in rows:
                    messages = streams.setdefault((path, number), [])
                    assert seq == len(messages)
                    messages.append(message)
    return sorted(streams.values())


def unary(server: Server, method: str, request: bytes) -> bytes:
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(f"/skywalking.v3.{method}", None, None)
        return bytes(call(request, timeout=DEADLINE_S))


def health(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        return int(check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S).status)


needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="certificates are made by the openssl command"
)


class Authority:
    """A certificate authority in a folder, which makes keys with certificates."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.certificate = folder / "ca.crt"
        self._run("req", "-x509", *self._key("ca"), "-out", "ca.crt", "-subj", "/CN=ca")

    def make(self, name: str, days: int = 1) -> tuple[Path, Path]:
        """Return the files of a key and its certificate."""
        self._run("req", *self._key(name), "-out", f"{name}.csr", "-subj", f"/CN={name}")
        extensions = self._folder / "extensions"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self._run(
            *("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", "-days", str(days)),
            *("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions"),
        )
        return self._folder / f"{name}.key", self._folder / f"{name}.crt"

    @staticmethod
    def _key(name: str) -> list[str]:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        return [*curve, "-nodes", "-keyout", f"{name}.key"]

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._folder, check=True, capture_output=True)


def collect_over_tls(
    server: Server, authority: Authority, messages: Messages, own: tuple[Path, Path] | None = None
) -> str:
    """Send a stream and return the name of the status."""
    key, chain = (path.read_bytes() for path in own) if own else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, chain)
    with grpc.secure_channel(server.address, credentials) as channel:
        try:
            call_of(channel)(iter(messages), timeout=DEADLINE_S)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"
