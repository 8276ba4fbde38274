"""Apdex thresholds: how the file is read, what is wrong with it, and what they do."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparison import differences, read_views
from reference import Definition, analyse, load_dump, parse_condition, read_capture_rows

from framewalk.engine.errors import InputError
from framewalk.engine.kubernetes.addresses import read_entities
from framewalk.engine.oal.files.apdex import ApdexThresholds, read_apdex_thresholds
from framewalk.engine.oal.files.definitions import load_plan
from framewalk.engine.runs.replayer import replay
from framewalk.engine.store.store import Store

OAL = """\
apdex_of_service = from(K8SService.protocol.http.latency)
    .filter(type == "protocol")
    .apdex(name, protocol.success);
apdex_of_relation = from(K8SServiceRelation.protocol.http.latency)
    .filter(type == "protocol")
    .apdex(destServiceName, protocol.success);
apdex_of_endpoint = from(K8SEndpoint.duration).apdex(serviceName, success);
"""
IN_WORDS = [
    Definition(
        "apdex_of_service",
        "K8SService",
        "protocol.http.latency",
        "apdex",
        (parse_condition('type == "protocol"'),),
        ("name", "protocol.success"),
    ),
    Definition(
        "apdex_of_relation",
        "K8SServiceRelation",
        "protocol.http.latency",
        "apdex",
        (parse_condition('type == "protocol"'),),
        ("destServiceName", "protocol.success"),
    ),
    Definition(
        "apdex_of_endpoint", "K8SEndpoint", "duration", "apdex", (), ("serviceName", "success")
    ),
]


def write(folder: Path, text: str) -> Path:
    path = folder / "thresholds.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_file_names_services_and_a_default(tmp_path: Path) -> None:
    text = "# ms\ndefault: 250\nreviews.bookinfo: 10 # slow\n'mesh::pay.shop': 1000\n10: 007\n"
    found = read_apdex_thresholds(write(tmp_path, text))
    assert found.default_ms == 250
    assert found.per_service_ms == {"reviews.bookinfo": 10, "mesh::pay.shop": 1000, "10": 7}


def test_without_a_default_it_is_500(tmp_path: Path) -> None:
    found = read_apdex_thresholds(write(tmp_path, "a: 1"))
    assert (found.default_ms, dict(found.per_service_ms)) == (500, {"a": 1})
    assert ApdexThresholds() == ApdexThresholds(500)


def test_a_name_is_cut_as_names_of_services_are(tmp_path: Path) -> None:
    found = read_apdex_thresholds(write(tmp_path, f"{'é' * 80}: 1"))
    assert found.per_service_ms == {"é" * 70: 1}


WRONG = {
    "": "1: there is no mapping of services",
    "# nothing": "1: there is no mapping of services",
    "- a: 1": "1: there is no mapping of services",
    "500": "1: there is no mapping of services",
    "a: 1\n\na: 2": "3: 'a' is also in line 1",
    "default: 1\ndefault: 1": "2: 'default' is also in line 1",
    f"{'a' * 70}b: 1\n{'a' * 70}c: 1": f"2: '{'a' * 70}' is also in line 1",
    "a: 0": "1: the threshold of 'a' is `0`",
    "a: 1\nb: -5": "2: the threshold of 'b' is `-5`",
    "a: 0.5": "1: the threshold of 'a' is `0.5`",
    "a: 99999999999": "1: the threshold of 'a' is `99999999999`",
    "a: 2147483648": "1: the threshold of 'a' is `2147483648`",
    "a: '500'": "1: the threshold of 'a' is something else",
    "a: true": "1: the threshold of 'a' is `true`",
    "a: 500ms": "1: the threshold of 'a' is `500ms`",
    "a:": "1: the threshold of 'a' is something else",
    "services:\n  a: 1": "1: the threshold of 'services' is something else",
    "[a]: 1": "1: the name of a service is a text",
    "a: 1\n b: [": "2: no YAML: mapping values are not allowed here",
    "a: {": "1: no YAML: expected the node content, but found '<stream end>'",
    "a: 1\n---\nb: 2": "2: no YAML: but found another document",
    "a: \x00": " no YAML: unacceptable character #x0000: special characters are not allowed",
    "a: *b": "1: no YAML: found undefined alias 'b'",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_told_in_a_line(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_apdex_thresholds(path)
    said = str(caught.value)
    assert said.startswith(f"{path}:{WRONG[text]}")
    assert "; " in said
    assert "\n" not in said


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: no such file or directory; check the path"):
        read_apdex_thresholds(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="is a directory; check"):
        read_apdex_thresholds(tmp_path)
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"a: 1\n\xff: 2\n")
    with pytest.raises(InputError, match=r"bytes\.yaml: no YAML"):
        read_apdex_thresholds(path)


@pytest.mark.parametrize(
    ("scenario", "default_ms"),
    [
        ("bookinfo", 500),
        ("boutique", 20),
        pytest.param("bookinfo", 20, marks=pytest.mark.long),
        pytest.param("boutique", 500, marks=pytest.mark.long),
    ],
    indirect=["scenario"],
)
def test_values_have_the_thresholds_of_the_reference(
    default_ms: int, scenario: Path, tmp_path: Path
) -> None:
    services = {"bookinfo": "reviews.bookinfo", "boutique": "frontend.boutique"}
    per_service = {services[scenario.name]: 3, "nobody.nowhere": 1}
    lines = [f"{name}: {limit}" for name, limit in per_service.items()]
    text = "\n".join([f"default: {default_ms}", *lines])
    definitions = tmp_path / "apdex.oal"
    definitions.write_text(OAL, encoding="utf-8")
    capture = scenario / f"{scenario.name}.capture.arrows"
    dump = scenario / "kubectl.yaml"
    plan = load_plan([definitions], read_apdex_thresholds(write(tmp_path, text)))
    with Store(tmp_path / "store.duckdb", plan) as store:
        replay([capture], read_entities(dump), store)
        got = read_views(store)
    thresholds = Thresholds(per_service, default_ms)
    want = analyse(read_capture_rows(capture), load_dump(dump), IN_WORDS, thresholds=thresholds)
    assert differences(got, want.values) == []
    seen = {value for rows in got.values() for row in rows.values() for value in row.values()}
    assert len(seen) > 2


class Thresholds(dict[str, int]):
    """What the reference asks for a service's threshold, with another default than its own."""

    def __init__(self, per_service: dict[str, int], default_ms: int) -> None:
        super().__init__(per_service)
        self._default_ms = default_ms

    def get(self, name: str, _default: object = None) -> int:  # type: ignore[override]
        return super().get(name, self._default_ms)

    def __bool__(self) -> bool:
        return True
