"""Whatever is wrong with an input, `framewalk` says so in one line and leaves the store as it was.

Every test runs the real command in a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from google.protobuf.message import Message
from prepared import COMMAND, framewalk
from processes import ending
from waiting import DEADLINE_S

from framewalk.engine.captures.format import (
    CAPTURE_SCHEMA,
    VERSION_KEY,
    CaptureReader,
    CaptureWriter,
)
from framewalk.engine.kubernetes.addresses import read_entities
from framewalk.engine.oal.files.definitions import load_plan
from framewalk.engine.runs.replayer import replay as replay_captures
from framewalk.engine.store.store import Store
from framewalk.engine.wire import access_log_pb2 as pb
from framewalk.engine.wire.common_pb2 import Instant

OAL = """\
service_cpm = from(K8SService.*).cpm();
service_duration = from(K8SService.protocol.http.latency).longAvg();
endpoint_cpm = from(K8SEndpoint.*).cpm();
"""
DUMP = """\
kind: List
items:
- kind: Service
  metadata: {name: shop, namespace: default}
  spec: {clusterIP: 10.0.0.1}
- kind: Pod
  metadata: {name: shop-0, namespace: default}
  status: {podIP: 10.0.1.1}
"""
BOOT_S = 1_800_000_000
RECEIVED_NS = (BOOT_S + 3600) * 10**9
QUERIES = (
    "FROM service_minute ORDER BY ALL",
    "FROM endpoint_minute ORDER BY ALL",
    "FROM internal.counters ORDER BY ALL",
    "FROM internal.positions ORDER BY ALL",
    "SELECT name, definition FROM metrics ORDER BY ALL",
)
SERVER = 1


@dataclass(frozen=True)
class Outcome:
    """How a process ended and what it printed."""

    code: int
    stdout: str
    stderr: str

    def value(self, name: str) -> str:
        """Return a value of the summary."""
        return dict(line.split("\t") for line in self.stdout.splitlines())[name].strip()


def run(*arguments: str | Path, command: Sequence[str] = (COMMAND,)) -> Outcome:
    if command == (COMMAND,):
        done = framewalk(*arguments)
        return Outcome(done.returncode, done.stdout, done.stderr)
    done = subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Scene:
    """A folder with a store that holds one capture, and all that a replay needs."""

    folder: Path
    content: list[list[tuple[Any, ...]]]

    @property
    def store(self) -> Path:
        return self.folder / "store.duckdb"

    @property
    def dump(self) -> Path:
        return self.folder / "kubectl.yaml"

    @property
    def oal(self) -> Path:
        return self.folder / "small.oal"

    @property
    def held(self) -> Path:
        """The capture that the store holds."""
        return self.folder / "held.capture.arrows"

    @property
    def capture(self) -> Path:
        """A capture that the store does not hold, in four record batches."""
        return self.folder / "new.capture.arrows"

    def file(self, name: str, content: bytes | str = b"") -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def replay(
        self, *captures: Path, command: Sequence[str] = (COMMAND,), **options: Path
    ) -> Outcome:
        options = {"entities": self.dump, "store": self.store, "oal": self.oal} | options
        flags = [part for name, path in options.items() for part in (f"--{name}", path)]
        return run("replay", *(captures or [self.capture]), *flags, command=command)

    def sql(self, query: str, *arguments: str | Path, store: Path | None = None) -> Outcome:
        return run("sql", query, "--store", store or self.store, *arguments)

    def assert_unchanged(self) -> None:
        assert read(self.store) == self.content


def read(store: Path) -> list[list[tuple[Any, ...]]]:
    with duckdb.connect(str(store), read_only=True) as connection:
        return [connection.execute(query).fetchall() for query in QUERIES]


def assert_refused(outcome: Outcome, place: Path | str, *words: str) -> None:
    """One line on standard error that names the place and what is wrong; nothing else."""
    assert outcome.code == 1, outcome
    assert outcome.stdout == ""
    (line,) = outcome.stderr.splitlines()
    assert line.startswith(f"error: {place}: "), line
    assert "; " in line, "what to do"
    for word in words:
        assert word in line
    assert_plain(outcome)


def assert_plain(outcome: Outcome) -> None:
    assert "Traceback" not in outcome.stderr
    assert "this is a bug" not in outcome.stderr


def message(second: int = 0, **changes: object) -> pb.EBPFAccessLogMessage:
    """One HTTP request from the pod of `front` to that of `back`."""
    start = pb.EBPFTimestamp(offset=pb.EBPFOffsetTimestamp(offset=second * 10**9))
    end = pb.EBPFTimestamp(offset=pb.EBPFOffsetTimestamp(offset=second * 10**9 + 5_000_000))
    request = pb.AccessLogHTTPProtocolRequest(path="/", sizeOfBodyBytes=10)
    http = pb.AccessLogHTTPProtocol(
        startTime=start,
        endTime=end,
        request=request,
        response=pb.AccessLogHTTPProtocolResponse(statusCode=200),
    )
    connection = pb.AccessLogConnection(local=address("back"), remote=address("front"), role=SERVER)
    made = pb.EBPFAccessLogMessage(
        node=pb.EBPFAccessLogNodeInfo(name="node", bootTime=Instant(seconds=BOOT_S)),
        connection=connection,
        protocolLog=pb.AccessLogProtocolLogs(http=http),
    )
    for path, value in changes.items():
        put(made, path.split("__"), value)
    return made


def address(service: str) -> pb.ConnectionAddress:
    pod = pb.KubernetesProcessAddress(serviceName=service, podName=f"{service}-1", port=80)
    return pb.ConnectionAddress(kubernetes=pod)


def put(target: Message, path: list[str], value: object) -> None:
    """Set a field; without a value, clear it."""
    *outer, last = path
    for name in outer:
        target = getattr(target, name)
    if value is None:
        target.ClearField(last)
    else:
        setattr(target, last, value)


def write_capture(path: Path, *batches: Sequence[bytes], first_stream: int = 0) -> Path:
    """Write each message as a stream of its own."""
    with CaptureWriter(path) as writer:
        stream = first_stream
        for batch in batches:
            streams = range(stream, stream + len(batch))
            stream += len(batch)
            writer.write_messages(streams, [0] * len(batch), [RECEIVED_NS] * len(batch), batch)
    return path


def encoded(*seconds: int) -> list[bytes]:
    return [message(second).SerializeToString() for second in seconds]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    scene = Scene(tmp_path_factory.mktemp("prepared"), [])
    scene.dump.write_text(DUMP)
    scene.oal.write_text(OAL)
    write_capture(scene.held, encoded(1, 2, 61))
    batches = [encoded(second, second + 1) for second in (120, 180, 240, 300)]
    write_capture(scene.capture, *batches, first_stream=100)
    with Store(scene.store, load_plan([scene.oal])) as store:
        replay_captures([scene.held], read_entities(scene.dump), store)
    return replace(scene, content=read(scene.store))


@pytest.fixture
def scene(prepared: Scene, tmp_path: Path) -> Scene:
    shutil.copytree(prepared.folder, tmp_path, dirs_exist_ok=True)
    return replace(prepared, folder=tmp_path)


# Captures


def ends_of_batches(capture: Path) -> list[int]:
    with CaptureReader(capture) as reader:
        start = reader.position.offset_bytes
        return [start, *(batch.position.offset_bytes for batch in reader)]


@pytest.mark.parametrize(
    ("cut", "messages"),
    [
        pytest.param(lambda ends: ends[2] + 3, 4, id="inside the length of a batch"),
        pytest.param(lambda ends: ends[2] + 20, 4, id="inside the header of a batch"),
        pytest.param(lambda ends: ends[3] - 10, 4, id="inside the body of a batch"),
        pytest.param(lambda ends: ends[1] - 10, 0, id="inside the first batch"),
    ],
)
def test_torn_capture_is_read_up_to_there(
    scene: Scene, cut: Callable[[list[int]], int], messages: int
) -> None:
    content = scene.capture.read_bytes()
    whole_ends = ends_of_batches(scene.capture)
    torn = scene.file("torn.capture.arrows", content[: cut(whole_ends)])
    outcome = scene.replay(torn)
    assert outcome.code == 0
    assert outcome.value("messages") == str(messages)
    (line,) = outcome.stderr.splitlines()
    assert line.startswith(f"warning: {torn}: torn or damaged from byte ")
    assert f": {messages} messages were read, " in line
    assert_plain(outcome)
    again = scene.replay(scene.capture)
    assert (again.code, again.stderr) == (0, "")
    assert again.value("messages") == str(8 - messages), "the rest, and only the rest"


def test_capture_without_an_end_marker_is_whole(scene: Scene) -> None:
    whole_ends = ends_of_batches(scene.capture)
    open_end = scene.file("open.capture.arrows", scene.capture.read_bytes()[: whole_ends[-1]])
    outcome = scene.replay(open_end)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.value("messages") == "8"


@pytest.mark.parametrize("damaged", [1, 4, 40, 150])
def test_flipped_bytes_end_the_reading(scene: Scene, damaged: int) -> None:
    content = bytearray(scene.capture.read_bytes())
    start = ends_of_batches(scene.capture)[2] + damaged
    content[start : start + 16] = bytes(byte ^ 0xFF for byte in content[start : start + 16])
    outcome = scene.replay(scene.file("flipped.capture.arrows", bytes(content)))
    assert outcome.code == 0
    assert outcome.value("messages") == "4"
    assert len(outcome.stderr.splitlines()) == 1
    assert "torn or damaged" in outcome.stderr
    assert_plain(outcome)


def test_capture_without_messages(scene: Scene) -> None:
    empty = write_capture(scene.folder / "none.capture.arrows", [])
    outcome = scene.replay(empty)
    assert outcome.code == 0
    assert outcome.stderr == (
        f"warning: {empty}: this capture holds no messages; nothing was added\n"
    )
    assert read(scene.store)[:3] == scene.content[:3], "its position is known, nothing else"


def with_schema(schema: pa.Schema, *columns: list[Any]) -> Callable[[Path], None]:
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    return lambda path: write_stream(path, pa.RecordBatch.from_arrays(arrays, schema=schema))


def write_stream(path: Path, batch: pa.RecordBatch) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, batch.schema) as writer:
        writer.write_batch(batch)


def write_arrow_file(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, CAPTURE_SCHEMA) as writer:
        writer.write_table(CAPTURE_SCHEMA.empty_table())


def write(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def versioned(version: str) -> Callable[[Path], None]:
    return with_schema(CAPTURE_SCHEMA.with_metadata({VERSION_KEY: version}), [0], [0], [0], [b""])


STREAM, SEQ = CAPTURE_SCHEMA.field("stream"), CAPTURE_SCHEMA.field("seq")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda _: None, "no such file", id="missing"),
        pytest.param(Path.mkdir, "no *.capture.arrows file in this folder", id="folder"),
        pytest.param(write(b""), "the file is empty", id="empty"),
        pytest.param(write(b"hello\n" * 99), "not an Arrow stream", id="text"),
        pytest.param(write(b"\xff\xff\xff\xff\x40"), "header is cut off", id="cut in its header"),
        pytest.param(write_arrow_file, "an Arrow file, not an Arrow stream", id="Arrow file"),
        pytest.param(
            with_schema(
                CAPTURE_SCHEMA.set(1, pa.field("seq", pa.string())), [0], ["0"], [0], [b""]
            ),
            "column 'seq' is string, not uint32",
            id="another type",
        ),
        pytest.param(
            with_schema(CAPTURE_SCHEMA.remove(3), [0], [0], [0]),
            "column 'message' is missing",
            id="column missing",
        ),
        pytest.param(
            with_schema(CAPTURE_SCHEMA.append(SEQ), [0], [0], [0], [b""], [0]),
            "column 'seq' is there more than once",
            id="column twice",
        ),
        pytest.param(
            with_schema(CAPTURE_SCHEMA.remove_metadata(), [0], [0], [0], [b""]),
            "no version in its header (framewalk.capture.version)",
            id="no version",
        ),
        pytest.param(versioned("2"), "version 2 is newer than 1", id="newer"),
        pytest.param(versioned("9" * 5000), "'99999999999999999999'", id="absurd version"),
        pytest.param(versioned("0"), "the version in its header is '0'", id="version 0"),
    ],
)
def test_not_a_capture(scene: Scene, make: Callable[[Path], object], words: str) -> None:
    path = scene.folder / "bad.capture.arrows"
    make(path)
    new_store = scene.folder / "other.duckdb"
    outcome = scene.replay(scene.capture, path, store=new_store)
    assert_refused(outcome, path, words)
    assert not new_store.exists(), "no capture was replayed, so no store was made"


def test_capture_below_a_file(scene: Scene) -> None:
    path = scene.held / "x.capture.arrows"
    assert_refused(scene.replay(path), path, "not a directory", "check the path")
    scene.assert_unchanged()


def test_capture_as_a_dump_and_as_a_store(scene: Scene) -> None:
    before = scene.capture.read_bytes()
    assert_refused(scene.replay(entities=scene.capture), scene.capture, "not a text file")
    assert_refused(scene.replay(store=scene.capture), scene.capture, "not a DuckDB file")
    assert scene.capture.read_bytes() == before


def test_name_that_is_not_utf_8(scene: Scene) -> None:
    folder = scene.folder / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    capture = folder / scene.capture.name
    shutil.copyfile(scene.capture, capture)
    shown = str(capture).replace("\udce9", "\\udce9")
    assert_refused(scene.replay(folder), shown, "its name is not UTF-8 text", "name it otherwise")
    scene.assert_unchanged()
    made = folder / "bookinfo.capture.arrows"
    shown = str(made).replace("\udce9", "\\udce9")
    assert_refused(run("generate", "bookinfo", "-o", folder), shown, "its name is not UTF-8 text")


def test_nulls_are_damage(tmp_path: Path) -> None:
    schema = CAPTURE_SCHEMA.set(0, STREAM.with_nullable(nullable=True))
    path = tmp_path / "nulls.capture.arrows"
    with_schema(schema, [0, None], [0, 0], [0, 0], [b"", b""])(path)
    with CaptureReader(path) as reader:
        assert list(reader) == []
        assert reader.warning is not None
        assert "column 'stream' has nulls" in reader.warning


# Messages

TOO_MUCH = 2**64 - 1


def test_hostile_messages_cost_only_themselves(scene: Scene) -> None:
    good = message(600).SerializeToString()
    bad_text = good.replace(b"front-1", b"\xff\xfe\xff\xff\xff\xff\xff")
    http = "protocolLog__http__"
    hostile = [
        b"\x0a\xff\xff\xff\xff\x0fnot protobuf",
        bad_text,
        *(
            changed.SerializeToString()
            for changed in (
                message(600, node=None),
                message(600, connection=None),
                message(600, connection__role=77),
                message(600, connection__local=None),
                message(600, node__bootTime=None),
                message(600, protocolLog__http=None),
                message(600, node__bootTime__seconds=2**63 - 1),
                # These are counted and kept.
                message(600, connection__tlsMode=77, connection__protocol=-5),
                message(600, **{f"{http}request__method": 77}),
                message(600, **{f"{http}endTime__offset__offset": 1}),
                message(600, **{f"{http}request__sizeOfBodyBytes": TOO_MUCH}),
            )
        ),
    ]
    batch = [one for bad in hostile for one in (good, bad)]
    outcome = scene.replay(write_capture(scene.folder / "hostile.capture.arrows", batch))
    assert (outcome.code, outcome.stderr) == (0, "")
    kept = len(hostile) + 4
    dropped = ("no node", "no connection", "unknown role", "no local address", "no boot time")
    for reason in (*dropped, "unknown operation", "time out of range"):
        assert outcome.value(f"dropped: {reason}") == "1"
    assert outcome.value("bad input: undecodable message") == "2"
    assert outcome.value("bad input: negative duration") == "1"
    assert outcome.value("bad input: value out of range") == "1"
    assert outcome.value("messages") == str(len(batch))
    counted = "SELECT sum(service_cpm) FROM service_minute WHERE time_bucket >= make_timestamp({}"
    answer = scene.sql(f"{counted.format((BOOT_S + 600) * 10**6)}) AND service = 'back'")
    assert answer.stdout.splitlines()[1:] == [str(kept)]


# Kubernetes dumps


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(bytes(range(256)), "not a text file", id="binary"),
        pytest.param(DUMP.replace("]", "").replace("}", ""), "neither YAML nor JSON", id="cut"),
        pytest.param("NAMESPACE  NAME  READY\nshop  x  1/1", "not a mapping", id="kubectl's table"),
        pytest.param("kind: Deployment", "neither a Pod nor a Service", id="wrong kind"),
        pytest.param("kind: Pod", "Pod: metadata.name is missing", id="missing fields"),
        pytest.param(
            DUMP.partition("- kind: Pod")[0].replace("10.0.0.1", "10.0.0"),
            'Service default/shop: spec.clusterIP is "10.0.0", not an IP address',
            id="wrong address",
        ),
    ],
)
def test_bad_dump(scene: Scene, content: bytes | str, words: str) -> None:
    path = scene.file("bad.yaml", content)
    outcome = scene.replay(entities=path)
    place = outcome.stderr.removeprefix("error: ").split(": ")[0]
    assert place.startswith(str(path))
    assert_refused(outcome, place, words, "kubectl")
    scene.assert_unchanged()


def test_no_dump(scene: Scene) -> None:
    missing = scene.folder / "nowhere.yaml"
    assert_refused(scene.replay(entities=missing), missing, "no such file", "check the path")
    folder = scene.folder / "empty"
    folder.mkdir()
    assert_refused(scene.replay(entities=folder), folder, "no *.yaml", "kubectl")
    scene.assert_unchanged()


# Stores


def make_database(path: Path, *statements: str) -> None:
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()


def make_newer(path: Path) -> None:
    make_database(path, "UPDATE internal.store SET version = 4")


def make_cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def make_foreign(path: Path) -> None:
    path.unlink()
    make_database(path, "CREATE TABLE mine AS SELECT 42 AS answer")


def make_foreign_schema(path: Path) -> None:
    path.unlink()
    make_database(path, "CREATE SCHEMA internal")


def make_without_version(path: Path) -> None:
    make_database(path, "DELETE FROM internal.store")


def make_odd_version(path: Path) -> None:
    make_database(
        path,
        "ALTER TABLE internal.store ALTER version TYPE VARCHAR",
        "UPDATE internal.store SET version = 'x'",
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(write(b"hello\n" * 99), "not a DuckDB file", id="text"),
        pytest.param(write(b""), "the file is empty; remove it", id="empty"),
        pytest.param(make_cut_off, "damaged or cut off", id="cut off"),
        pytest.param(make_foreign, "was not made by framewalk", id="another DuckDB file"),
        pytest.param(make_foreign_schema, "was not made by framewalk", id="a schema `internal`"),
        pytest.param(make_without_version, "was not made by framewalk", id="no version"),
        pytest.param(make_odd_version, "was not made by framewalk", id="odd version"),
        pytest.param(make_newer, "store version 4 is newer than 3", id="newer"),
    ],
)
def test_bad_store(scene: Scene, spoil: Callable[[Path], object], words: str) -> None:
    spoil(scene.store)
    before = scene.store.read_bytes()
    assert_refused(scene.replay(), scene.store, words)
    assert_refused(scene.sql("FROM metrics"), scene.store, words)
    assert scene.store.read_bytes() == before


def test_store_that_cannot_be_made(scene: Scene) -> None:
    below = scene.folder / "nowhere" / "store.duckdb"
    assert_refused(scene.replay(store=below), below, "its folder does not exist; make it")
    assert_refused(scene.replay(store=scene.folder), scene.folder, "this is a folder")


def test_store_to_read_is_missing(scene: Scene) -> None:
    missing = scene.folder / "nowhere.duckdb"
    outcome = scene.sql("FROM metrics", store=missing)
    assert_refused(outcome, missing, "no such file; make it with `framewalk replay` or `serve`")
    assert not missing.exists()


HOLD = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(scene: Scene) -> Iterator[int]:
    """The id of another process that has the store open."""
    command = [sys.executable, "-c", HOLD, str(scene.store)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with ending(subprocess.Popen(command, text=True, **pipes)) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "held\n"
        yield process.pid
        process.communicate()


def test_locked_store(scene: Scene, holder: int) -> None:
    words = ("another process has it open", f"PID {holder}", "stop it, or wait for it")
    assert_refused(scene.replay(), scene.store, *words)
    assert_refused(scene.sql("FROM metrics"), scene.store, *words)


def test_snapshot_over_a_store_in_use(scene: Scene, holder: int) -> None:
    source = scene.folder / "other.duckdb"
    shutil.copyfile(scene.store, source)
    log_of_changes = scene.file("store.duckdb.wal", b"not yet in the file")
    before = scene.store.read_bytes()
    outcome = run("snapshot", scene.store, "--store", source, "--force")
    assert_refused(outcome, scene.store, "another process has it open", f"PID {holder}")
    assert (scene.store.read_bytes(), log_of_changes.exists()) == (before, True)


def test_snapshot_over_anything_else(scene: Scene) -> None:
    for file in (scene.file("text.duckdb", "no store"), scene.file("empty.duckdb")):
        assert run("snapshot", file, "--store", scene.store, "--force").code == 0
        assert read(file) == scene.content


def test_changed_definition(scene: Scene) -> None:
    text = OAL.replace("K8SService.*)", 'K8SService.*).filter(type == "protocol")')
    outcome = scene.replay(oal=scene.file("changed.oal", text))
    assert_refused(outcome, scene.store, "service_cpm", "give the new meaning a new name")
    scene.assert_unchanged()


LIMITED = """
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_full_disk(scene: Scene) -> None:
    # No file may grow beyond the limit: what a full disk does, without needing one.
    command = [sys.executable, "-c", LIMITED, "1000", COMMAND]
    outcome = scene.replay(command=command)
    assert_refused(outcome, scene.store, "cannot be written", "nothing is lost")
    scene.assert_unchanged()
    assert scene.replay().value("messages") == "8"


def test_full_disk_while_a_store_is_made(scene: Scene) -> None:
    store = scene.folder / "new.duckdb"
    outcome = scene.replay(store=store, command=[sys.executable, "-c", LIMITED, "20000", COMMAND])
    assert_refused(outcome, store, "cannot be written")
    assert scene.replay(store=store).value("messages") == "8"


# Definitions


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = from(K8SService.*).cpm(;", ":1:28: error: "),
        ("x = from(K8SServise.*).cpm();", "did you mean K8SService?"),
        (b"\xff\xfe\x00", "want a file in UTF-8"),
    ],
)
def test_wrong_definitions(scene: Scene, text: bytes | str, words: str) -> None:
    path = scene.file("wrong.oal", text)
    outcome = scene.replay(oal=path)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.stderr.startswith(f"{path}:1:")
    assert words in outcome.stderr
    assert_plain(outcome)
    scene.assert_unchanged()


def test_no_definitions(scene: Scene) -> None:
    nothing = scene.file("nothing.oal", "// later\n")
    assert_refused(scene.replay(oal=nothing), nothing, "no metric is defined here")
    folder = scene.folder / "empty"
    folder.mkdir()
    assert_refused(scene.replay(oal=folder), folder, "no *.oal file in this folder")
    missing = folder / "x.oal"
    assert_refused(scene.replay(oal=missing), missing, "no such file", "check the path")
    scene.assert_unchanged()


# Queries


@pytest.mark.parametrize(
    ("query", "place", "words"),
    [
        ("selekt 1", "query", 'syntax error at or near "selekt" LINE 1: selekt 1; correct'),
        ("SELECT nope FROM service_minute", "query", '"nope" not found'),
        ("SELECT error('two\nlines')", "query", "two lines; correct the query"),
        ("", "query", "there is no SQL in it"),
        ("servces", "servces", "there are changes, connect_failures, dropped"),
        ("DROP VIEW service_minute", "query", "framewalk sql only reads"),
        ("DELETE FROM internal.store", "query", "framewalk sql only reads"),
        ("nowhere.sql", "nowhere.sql", "no such file"),
    ],
)
def test_wrong_query(scene: Scene, query: str, place: str, words: str) -> None:
    assert_refused(scene.sql(query), place, words)
    scene.assert_unchanged()


def test_wrong_query_file(scene: Scene) -> None:
    wrong = scene.file("wrong.sql", "SELECT 1,\n  nope\nFROM service_minute")
    assert_refused(scene.sql(str(wrong)), wrong, '"nope" not found')
    binary = scene.file("binary.sql", b"\xff\xfe")
    assert_refused(scene.sql(str(binary)), binary, "not UTF-8 text")


@pytest.mark.parametrize(
    "query", ["-- top\nSELECT 1 AS a", "--top\nSELECT 1 AS a", "SELECT 1 AS a -- as in x.sql"]
)
def test_query_with_a_comment(scene: Scene, query: str) -> None:
    assert scene.sql(query, "--format", "csv") == Outcome(0, "a\n1\n", "")


def test_query_file_with_a_space_in_its_name(scene: Scene) -> None:
    file = scene.file("my query.sql", "SELECT 1 AS a")
    assert scene.sql(str(file), "--format", "csv") == Outcome(0, "a\n1\n", "")


@pytest.mark.parametrize("name", ["service_minute", "dropped"])
def test_name_with_a_semicolon(scene: Scene, name: str) -> None:
    # A view's rows come in any order.
    with_it, without = scene.sql(f"{name}; "), scene.sql(name)
    assert (with_it.code, without.code) == (0, 0)
    assert sorted(with_it.stdout) == sorted(without.stdout)


def test_last_of_several_statements_is_printed(scene: Scene) -> None:
    outcome = scene.sql("SELECT 1 AS a; SELECT 2 AS b", "--format", "csv")
    assert outcome == Outcome(0, "b\n2\n", "")


def test_query_without_rows(scene: Scene) -> None:
    outcome = scene.sql("SELECT 1 AS a WHERE false", "--format", "json")
    assert outcome == Outcome(0, "[]\n", "")


def test_hostile_names_are_shown_as_they_are(scene: Scene) -> None:
    outcome = scene.sql("SELECT '[/x]' AS \"[/y]\", chr(27) || '[31m' AS b", "--format", "table")
    assert outcome.code == 0
    assert "[/x]" in outcome.stdout
    assert "[/y]" in outcome.stdout
    assert "\\x1b[31m" in outcome.stdout


@pytest.mark.parametrize("form", ["csv", "json", "table"])
def test_letters_that_the_output_does_not_have(scene: Scene, form: str) -> None:
    command = ["env", "PYTHONIOENCODING=ascii", COMMAND]
    query = ("sql", "SELECT 'é→' AS a", "--store", scene.store, "--format", form)
    outcome = run(*query, command=command)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "\\u2192" in outcome.stdout
    if form == "json":
        assert json.loads(outcome.stdout) == [{"a": "é→"}]


# Usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay"],
        ["replay", "x.capture.arrows", "-e", "x"],
        ["replay", "x.capture.arrows", "-e", "x", "-s", "x.duckdb", "--commit-logs", "-1"],
        ["sql"],
        ["sql", "FROM metrics", "--store", "x.duckdb", "--format", "xml"],
        ["generate", "nowhere"],
        ["generate", "bookinfo", "--duration", "-1"],
        ["generate", "bookinfo", "--rate", "inf"],
        ["generate", "bookinfo", "--start", "0001-01-01T00:00:00"],
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: list[str]) -> None:
    outcome = run(*arguments)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("Usage: framewalk ")
    assert_plain(outcome)


# Ends that come from outside


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(scene: Scene, closed: str) -> None:
    shell = ["bash", "-c", f'"$@" {closed}', "bash", COMMAND]
    done = scene.replay(command=shell)
    assert (done.code, done.stderr) == (0, "")
    assert read(scene.store) != scene.content
    wrong = run("sql", "nope", "--store", scene.store, command=shell)
    assert (wrong.code, wrong.stdout) == (1, "")
    assert_plain(wrong)
    assert wrong.stderr.startswith("error: nope: ") == ("2>" not in closed)


@pytest.mark.parametrize("form", ["csv", "json", "table"])
def test_closed_pipe(scene: Scene, form: str) -> None:
    query = "SELECT i, repeat('x', 100) AS x FROM range(20000) AS t(i)"
    command = [COMMAND, "sql", query, "--store", str(scene.store), "--format", form]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ending(subprocess.Popen(command, text=True, **pipes)) as process:  # type: ignore[call-overload]
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 0
        assert process.stderr.read() == ""


ENDLESS = "SELECT count(*) FROM range(100000000000) AS t(i) WHERE sin(i) > 0.5"


def interrupt(command: Sequence[str | Path], started: Callable[[], bool]) -> Outcome:
    """Run a command and send it Ctrl-C as soon as it has started its work."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ending(subprocess.Popen(command, text=True, **pipes)) as process:  # type: ignore[call-overload]
        while not started():
            assert process.poll() is None, "it ended before it began"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=DEADLINE_S)
        return Outcome(process.returncode, stdout, stderr)


INTERRUPTED = Outcome(
    130, "", "error: interrupted; nothing stored is lost, run this again to go on\n"
)


def test_interrupted_replay_goes_on(scene: Scene) -> None:
    one = message(600).SerializeToString()
    batches = [[one] * 50_000 for _ in range(4)]
    long = write_capture(scene.folder / "long.capture.arrows", *batches)
    log_of_changes = scene.store.with_name("store.duckdb.wal")
    flags = ["-e", scene.dump, "-s", scene.store, "--oal", scene.oal, "--commit-logs", "1"]
    outcome = interrupt(
        [COMMAND, "replay", long, *flags],
        lambda: log_of_changes.exists() and log_of_changes.stat().st_size > 0,
    )
    assert outcome == INTERRUPTED
    assert all(row in read(scene.store)[0] for row in scene.content[0])
    rest = scene.replay(long)
    assert rest.code == 0
    total = "SELECT sum(service_cpm) FROM service_minute WHERE service = 'back'"
    assert scene.sql(total, "--format", "csv").stdout.splitlines()[1:] == ["200003"]


def test_interrupted_query(scene: Scene) -> None:
    marker = scene.folder / "started.csv"
    query = f"COPY (SELECT 1) TO '{marker}'; {ENDLESS}"
    outcome = interrupt([COMMAND, "sql", query, "--store", scene.store], marker.exists)
    assert outcome == Outcome(130, "", "error: interrupted\n")
    scene.assert_unchanged()


INTERRUPTING = """
import os, random, signal, sys, threading
from pathlib import Path
from framewalk.cli.sources import open_store

draws = random.Random(1)
with open_store(Path(sys.argv[1])) as source:
    for _ in range(30):
        ctrl_c = threading.Timer(draws.uniform(0, 0.004), os.kill, (os.getpid(), signal.SIGINT))
        try:
            ctrl_c.start()
            source.ask(sys.argv[2])
        except KeyboardInterrupt:
            ctrl_c.join()
print("every time")
"""


def test_ctrl_c_at_any_moment(scene: Scene) -> None:
    # Between its statements a query has nothing that could be interrupted: one in five was lost.
    query = f"COPY (SELECT 1) TO '{scene.folder}/some.csv'; {ENDLESS}"
    outcome = run(str(scene.store), query, command=[sys.executable, "-c", INTERRUPTING])
    assert outcome == Outcome(0, "every time\n", "")
