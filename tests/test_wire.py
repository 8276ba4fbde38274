"""The generated protobuf code belongs to the .proto files, and those to the wire contract."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format

from framewalk.engine.wire import access_log_pb2, process_pb2, profiling_pb2

WIRE = Path(__file__).parent.parent / "engine" / "wire"
PROTOS = sorted(path.stem for path in WIRE.glob("*.proto"))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wire")
    files = [f"framewalk/engine/wire/{name}.proto" for name in PROTOS]
    mapping = f"--proto_path=framewalk/engine/wire={WIRE}"
    outputs = [f"--python_out={folder}", f"--pyi_out={folder}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", mapping, *outputs, *files]
    subprocess.run(command, check=True, cwd=folder)
    return folder / "framewalk" / "engine" / "wire"


@pytest.mark.parametrize("name", PROTOS)
@pytest.mark.parametrize("suffix", ["_pb2.py", "_pb2.pyi"])
def test_generated_code_is_up_to_date(generated: Path, name: str, suffix: str) -> None:
    file = name + suffix
    same = (generated / file).read_text() == (WIRE / file).read_text()
    assert same, f"{file} is stale: run `make wire`"


def test_methods_have_the_names_that_rover_calls() -> None:
    methods = {
        f"{service.full_name}/{method.name}"
        for module in (access_log_pb2, process_pb2, profiling_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert methods == {
        "skywalking.v3.EBPFAccessLogService/collect",
        "skywalking.v3.EBPFProcessService/reportProcesses",
        "skywalking.v3.EBPFProcessService/keepAlive",
        "skywalking.v3.EBPFProfilingService/queryTasks",
        "skywalking.v3.EBPFProfilingService/collectProfilingData",
        "skywalking.v3.ContinuousProfilingService/queryPolicies",
        "skywalking.v3.ContinuousProfilingService/reportProfilingTask",
    }


def varint(value: int) -> bytes:
    low = value & 0x7F
    return bytes([low]) if value < 0x80 else bytes([low | 0x80]) + varint(value >> 7)


def encoded(fields: dict[int, object]) -> bytes:
    """Encode field numbers and values by the rules of protobuf, without its library."""
    return b"".join(encoded_field(number, value) for number, value in fields.items())


def encoded_field(number: int, value: object) -> bytes:
    if isinstance(value, list):
        return b"".join(encoded_field(number, item) for item in value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else encoded(dict(value))  # type: ignore[call-overload]
    return varint(number << 3 | 2) + varint(len(content)) + content


TIME = {1: {1: 2**64 - 1}}
READ = {
    1: TIME,
    2: TIME,
    3: 5,
    4: {1: 1, 2: 2, 3: 3, 4: 4, 5: 5},
    5: {n: n for n in range(1, 6)},
    6: {1: 1},
}
WRITE = {
    1: TIME,
    2: TIME,
    3: 7,
    4: {1: 1, 2: 2, 3: 3, 4: {1: "at", 2: 2}, 5: 5},
    5: {1: 1, 2: 2, 3: 3, 5: 5, 6: 6, 7: 7, 8: 8},
    6: {1: 1, 2: 2, 3: 3, 4: 4, 5: 5},
}
HTTP = {
    1: TIME,
    2: TIME,
    3: 1,
    4: {1: 8, 2: "/", 3: 3, 4: 4, 5: {1: 1, 2: "t", 3: "g", 4: "s"}, 6: "host"},
    5: {1: 503, 3: 3, 4: 4},
}
MESSAGE = {
    1: {
        1: "node",
        2: [{1: 2, 2: 1500, 3: "eth0"}],
        3: {1: 9, 2: 8},
        4: "c",
        5: {1: ["kube-system"]},
    },
    2: {
        1: {1: {1: "service", 2: "pod", 3: "container", 4: "process", 5: 80}},
        2: {2: {1: "10.0.0.1", 2: 443}},
        3: 1,
        4: 1,
        5: 2,
        6: {1: {1: "10.0.0.2", 2: 1, 3: 1, 4: [{1: "k", 2: "v"}]}},
    },
    3: [
        {1: {1: TIME, 2: TIME, 3: 1}},
        {2: {1: TIME, 2: TIME}},
        {3: {1: TIME, 2: TIME, 3: 1}},
        {4: READ},
        {5: WRITE},
    ],
    4: {1: HTTP},
}


def test_every_field_has_its_number_and_type() -> None:
    message = access_log_pb2.EBPFAccessLogMessage.FromString(encoded(MESSAGE))
    text = text_format.MessageToString(message)
    assert text == (Path(__file__).parent / "spec" / "message.txtpb").read_text(encoding="utf-8")
    assert message.SerializeToString(deterministic=True) == encoded(MESSAGE)
