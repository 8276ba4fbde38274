"""All shipped metrics have the values that a slow, independent reference finds."""

from __future__ import annotations

import base64
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from comparison import differences, read_views
from conftest import CAPTURES
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Result, analyse, load_dump, read_capture_rows, read_definitions
from strategies import BASE, HOSTILE_DUMP, NS, HostileCapture, hostile_captures

from framewalk.engine.captures.format import CaptureWriter
from framewalk.engine.counters import Counters
from framewalk.engine.kubernetes.addresses import Entities, read_entities
from framewalk.engine.oal.files.definitions import load_plan
from framewalk.engine.oal.plan import Plan
from framewalk.engine.runs.replayer import replay
from framewalk.engine.schemas import NEAR_CHANGE
from framewalk.engine.store.store import Store
from framewalk.engine.wire import access_log_pb2 as pb

DEFINITIONS = read_definitions()


@pytest.fixture(scope="module")
def hostile_entities(tmp_path_factory: pytest.TempPathFactory) -> Entities:
    path = tmp_path_factory.mktemp("dump") / "kubectl.yaml"
    path.write_text(HOSTILE_DUMP, encoding="utf-8")
    return read_entities(path)


@pytest.mark.parametrize(
    ("name", "resolution"),
    [
        ("bookinfo", "minute"),
        pytest.param("bookinfo", "hour", marks=pytest.mark.long),
        ("bookinfo", "day"),
        ("boutique", "minute"),
        pytest.param("boutique", "hour", marks=pytest.mark.long),
        pytest.param("boutique", "day", marks=pytest.mark.long),
    ],
)
def test_committed_captures_have_the_reference_values(
    name: str, resolution: str, plan: Plan, empty_store: Path, tmp_path: Path
) -> None:
    scenario = CAPTURES / name
    capture = scenario / f"{scenario.name}.capture.arrows"
    dump = scenario / "kubectl.yaml"
    want = analyse(read_capture_rows(capture), load_dump(dump), DEFINITIONS, resolution=resolution)
    with Store(Path(shutil.copy(empty_store, tmp_path / "store.duckdb")), plan) as store:
        summary = replay([capture], read_entities(dump), store)
        got = read_views(store, resolution)
    assert differences(got, want.values) == []
    assert_same_counts(summary.counters, want)
    assert sum(len(rows) for rows in want.values.values()) > 50


SCOPES = {
    "K8SService": "service",
    "K8SServiceInstance": "service_instance",
    "K8SEndpoint": "endpoint",
    "K8SServiceRelation": "service_relation",
    "K8SServiceInstanceRelation": "service_instance_relation",
    "K8SEndpointRelation": "endpoint_relation",
}


def test_identifiers_are_made_of_names_alone(scenario: Path, tmp_path: Path) -> None:
    """As section 7 of analysis.md writes them."""
    definitions = tmp_path / "definitions.oal"
    texts = [f"calls_{at} = from({scope}.*).cpm();" for at, scope in enumerate(SCOPES)]
    definitions.write_text("\n".join(texts), encoding="utf-8")
    with Store(tmp_path / "store.duckdb", load_plan([definitions])) as store:
        replay([scenario], read_entities(scenario / "kubectl.yaml"), store)
        found = store.query("SELECT scope, names, entity_id FROM entities").fetchall()
        for scope, view in SCOPES.items():
            in_view = store.query(f"SELECT DISTINCT entity_id FROM {view}_minute").fetchall()
            assert {row[0] for row in in_view} == {row[2] for row in found if row[0] == scope}
    assert {scope for scope, _, _ in found} == SCOPES.keys()
    for scope, names, entity_id in found:
        services = [name for key, name in names.items() if key.endswith("service")]
        others = [name for key, name in names.items() if key.endswith(("instance", "endpoint"))]
        sides = [f"{base64_of(name)}.1" for name in services]
        joint = "-" if scope == "K8SEndpointRelation" else "_"
        ends = [f"{joint}{base64_of(name)}" for name in others] or [""] * len(sides)
        assert entity_id == "-".join(a + b for a, b in zip(sides, ends, strict=True)), names


TUNNEL = pb.ZTunnelAttachmentEnvironment


@pytest.mark.parametrize(
    ("fields", "component_ids"),
    [
        ({}, [110]),
        ({"tlsMode": pb.TLS}, [130]),
        ({"protocol": 1}, [49]),
        ({"protocol": 2, "tlsMode": pb.TLS}, [129]),
        ({"attachment": pb.ConnectionAttachment(zTunnel=TUNNEL())}, [142, 162]),
        ({"attachment": pb.ConnectionAttachment(zTunnel=TUNNEL(security_policy=1))}, [162]),
    ],
)
def test_entities_have_the_component_ids_of_their_connections(
    fields: dict[str, Any], component_ids: list[int], tmp_path: Path
) -> None:
    message = pb.EBPFAccessLogMessage(connection=pb.AccessLogConnection(**fields))
    message.node.bootTime.seconds = BASE
    message.connection.local.kubernetes.serviceName = "a"
    message.connection.remote.kubernetes.serviceName = "b"
    message.kernelLogs.add().read.SetInParent()
    capture = tmp_path / "one.capture.arrows"
    write_rows(capture, [(0, 0, BASE * NS, message.SerializeToString())], [])
    definitions = tmp_path / "definitions.oal"
    definitions.write_text("calls = from(K8SServiceRelation.*).cpm();", encoding="utf-8")
    with Store(tmp_path / "store.duckdb", load_plan([definitions])) as store:
        replay([capture], read_entities(), store)
        found = store.query("SELECT DISTINCT component_ids FROM entities").fetchall()
    assert [sorted(ids) for (ids,) in found] == [component_ids]


def base64_of(name: str) -> str:
    return base64.b64encode(name.encode()).decode()


def assert_same_counts(counters: Counters, want: Result) -> None:
    assert (counters.messages, counters.logs) == (want.messages, want.logs)
    assert counters.dropped == +want.dropped
    # What is near a change of hands is tested with random histories.
    assert counters.quality - Counter({NEAR_CHANGE: counters.quality[NEAR_CHANGE]}) == +want.quality


@settings(max_examples=12)
@given(capture=hostile_captures(), cuts=st.lists(st.integers(1, 20), max_size=4))
def test_hostile_captures_have_the_reference_values(  # noqa: PLR0913, PLR0917 - fixtures
    capture: HostileCapture,
    cuts: list[int],
    plan: Plan,
    empty_store: Path,
    hostile_entities: Entities,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    path = write_rows(folder / "hostile.capture.arrows", capture.rows, cuts)
    want = analyse(capture.rows, load_dump(HOSTILE_DUMP), DEFINITIONS)
    with Store(Path(shutil.copy(empty_store, folder / "store.duckdb")), plan) as store:
        summary = replay([path], hostile_entities, store)
        got = read_views(store)
    assert differences(got, want.values) == []
    assert_same_counts(summary.counters, want)


def write_rows(
    path: Path, rows: Sequence[tuple[int, int, int, bytes]], cuts: Sequence[int]
) -> Path:
    """Write rows as record batches of these lengths, the rest as one more."""
    with CaptureWriter(path) as writer:
        start = 0
        for length in [*cuts, len(rows)]:
            batch = rows[start : start + length]
            if batch:
                writer.write_messages(*zip(*batch, strict=True))
            start += length
    return path
