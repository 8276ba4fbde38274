"""`framewalk send`: captures into a real `framewalk record`."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from comparison import Values, differences, read_views
from conftest import CAPTURES
from object_storage import object_storage
from prepared import framewalk
from processes import free_port
from recording import TOKEN, Messages, Server, recorded
from typer.testing import CliRunner

from framewalk.cli.main import app
from framewalk.engine.captures.format import CaptureReader, CaptureWriter
from framewalk.engine.captures.format import captures_in as segments
from framewalk.engine.errors import InputError
from framewalk.engine.kubernetes.addresses import read_entities
from framewalk.engine.oal.files.definitions import load_plan
from framewalk.engine.runs.replayer import replay
from framewalk.engine.store.store import Store
from framewalk.receiver import send as sender

BOOKINFO = CAPTURES / "bookinfo" / "bookinfo.capture.arrows"
DUMP = CAPTURES / "bookinfo" / "kubectl.yaml"
OAL = "service_cpm = from(K8SService.*).cpm();\n"

Row = tuple[int, int, bytes]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A receiver that asks for a token."""
    with Server(
        tmp_path_factory.mktemp("asks"),
        SW_AUTHENTICATION=TOKEN,
        SW_TELEMETRY_PROMETHEUS_PORT=str(free_port()),
    ) as running:
        yield running


def send(
    capture: Path, address: str, *options: str, token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    return framewalk("send", capture, "--to", address, *options, FRAMEWALK_TOKEN=token)


def rows_of(streams: Sequence[Messages]) -> list[Row]:
    """The streams one after the other."""
    return [
        (number, seq, message)
        for number, messages in enumerate(streams)
        for seq, message in enumerate(messages)
    ]


def write(path: Path, rows: Sequence[Row]) -> Path:
    with CaptureWriter(path) as writer:
        numbers, seqs, messages = zip(*rows, strict=True)
        writer.write_messages(numbers, seqs, [0] * len(rows), messages)
    return path


def views(captures: Sequence[Path], folder: Path, name: str) -> Values:
    definitions = folder / "small.oal"
    definitions.write_text(OAL)
    with Store(folder / f"{name}.duckdb", load_plan([definitions])) as store:
        replay(captures, read_entities(DUMP), store)
        return read_views(store)


def streams_of(capture: Path) -> list[Messages]:
    streams: dict[int, Messages] = {}
    with CaptureReader(capture) as reader:
        for batch in reader:
            columns = (batch.messages[name].to_pylist() for name in ("stream", "message"))
            for number, message in zip(*columns, strict=True):
                streams.setdefault(number, []).append(message)
    return sorted(streams.values())


def test_a_sent_capture_counts_as_a_replayed_one(tmp_path: Path) -> None:
    with Server(tmp_path / "spool") as server:
        told = send(BOOKINFO, server.address, token="")
        assert server.stop() == 0
    assert (told.returncode, told.stderr) == (0, "")
    summary = dict(line.split("\t") for line in told.stdout.splitlines())
    assert summary["streams"] == summary["streams acknowledged"] == "177"
    assert summary["messages acknowledged"] == "12,875"
    assert recorded(server.spool) == streams_of(BOOKINFO)
    want = views([BOOKINFO], tmp_path, "replayed")
    assert any(want.values())
    assert differences(views(segments(server.spool), tmp_path, "sent"), want) == []


def test_a_wrong_token_is_told_once(server: Server, tmp_path: Path) -> None:
    capture = write(tmp_path / "small.capture.arrows", rows_of([[b"a", b"b"]] * 20))
    told = send(capture, server.address, token="not it")  # noqa: S106 - of a test
    assert told.returncode == 1
    refused = "20 streams were not acknowledged: UNAUTHENTICATED"
    assert told.stderr == f"error: {server.address}: {refused}: the authentication token is wrong\n"
    assert "not it" not in told.stdout
    assert "streams acknowledged\t0\n" in told.stdout


def test_nobody_listens() -> None:
    address = f"127.0.0.1:{free_port()}"
    told = send(BOOKINFO, address)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(f"error: {address}: no receiver can be reached here (")
    assert "check the address" in told.stderr
    assert told.stderr.count("\n") == 1


def test_no_proxy_is_asked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    told = send(write(tmp_path / "one.capture.arrows", [(0, 0, b"proxy")]), server.address)
    assert (told.returncode, told.stderr) == (0, "")
    url = f"http://127.0.0.1:{server.environment['SW_TELEMETRY_PROMETHEUS_PORT']}"
    status = framewalk("status", "--url", url)
    assert (status.returncode, status.stderr) == (0, "")


def test_no_more_than_the_rate(server: Server, tmp_path: Path) -> None:
    streams = [[f"rate {number} {seq}".encode() for seq in range(10)] for number in range(11)]
    capture = write(tmp_path / "small.capture.arrows", rows_of(streams))
    started_s = time.monotonic()
    told = send(capture, server.address, "--rate", "100")
    assert time.monotonic() - started_s >= 1
    assert (told.returncode, told.stderr) == (0, "")
    assert "messages acknowledged\t110\n" in told.stdout
    assert [one for one in recorded(server.spool) if one[0].startswith(b"rate")] == sorted(streams)


def test_a_stream_ends_after_the_window(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(1, 0, b"a0"), (2, 0, b"b0"), (1, 1, b"a1"), (2, 1, b"b1"), (2, 2, b"b2")]
    capture = write(tmp_path / "late.capture.arrows", [*rows, (2, 3, b"b3"), (1, 2, b"a2")])
    monkeypatch.setattr(sender, "WINDOW_MESSAGES", 3)
    sent = sender.send_captures(
        [capture],
        sender.Receiver(server.address, token=TOKEN),
        messages_per_s=None,
        at_once=1,
        on_progress=lambda *_: None,
    )
    assert (sent.acknowledged, sent.messages, sent.continued) == (3, 7, 1)
    kept = recorded(server.spool)
    assert all(one in kept for one in ([b"a0", b"a1"], [b"b0", b"b1", b"b2", b"b3"], [b"a2"]))


@pytest.mark.parametrize("address", ["localhost", "localhost:0", ":11800", "unix:/tmp/a:1"])
def test_a_wrong_address_is_wrong_usage(address: str) -> None:
    told = CliRunner().invoke(app, ["send", str(BOOKINFO), "--to", address])
    assert told.exit_code == 2
    assert "HOST:PORT" in told.output


def test_tls_files_that_are_none(tmp_path: Path) -> None:
    def credentials(ca: Path) -> None:
        receiver = sender.Receiver("localhost:1", sender.ClientTls(ca))
        sender.send_captures(
            [], receiver, messages_per_s=None, at_once=1, on_progress=lambda *_: None
        )

    with pytest.raises(InputError, match="this is no PEM certificate; give one"):
        credentials(DUMP)
    with pytest.raises(FileNotFoundError, match=r"none\.pem"):
        credentials(tmp_path / "none.pem")


def test_a_folder_of_object_storage_is_sent_as_files_are(tmp_path: Path) -> None:
    with object_storage() as storage, Server(tmp_path, SW_AUTHENTICATION=TOKEN) as server:
        storage.put("a day/bookinfo.capture.arrows", BOOKINFO.read_bytes())
        options = {"FRAMEWALK_TOKEN": TOKEN} | storage.environment
        done = framewalk("send", "s3://shared/a day/", "--to", server.address, **options)
        assert done.returncode == 0, done.stderr
        assert server.stop() == 0
        sent = sorted(message for stream in recorded(server.spool) for message in stream)
    with CaptureReader(BOOKINFO) as reader:
        wanted = [one for batch in reader for one in batch.messages["message"].to_pylist()]
    assert sent == sorted(wanted)
