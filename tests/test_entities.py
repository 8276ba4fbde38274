"""The entity table against a plain reading of docs/semantics.md, and the dumps it is read from."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from framewalk.engine.errors import EntitiesError
from framewalk.engine.kubernetes.addresses import ADDRESS_SCHEMA, Entities, read_entities
from framewalk.engine.kubernetes.dumps import read_dump
from framewalk.engine.kubernetes.inventory import Inventory, Pod, Service

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

AGAIN = "; give the output of 'kubectl get pods,services -A -o yaml' (or json)"
CORRECT = "; give the dump as kubectl wrote it, or correct this field"
NO_CONTROL = "control characters are not allowed"
TEN_O_CLOCK_NS = 1_714_557_600_000_000_000

NAMES = ("a", "b", "c")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "fd00::1")
TIMES_NS = st.integers(0, 6)
LABELS = st.dictionaries(st.sampled_from("xy"), st.sampled_from("12"), max_size=2)
SOME_ADDRESSES = st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True).map(tuple)

pods = st.builds(
    Pod,
    namespace=st.sampled_from(NAMES[:2]),
    name=st.sampled_from(NAMES),
    uid=st.just(""),
    labels=LABELS,
    created_ns=st.none() | TIMES_NS,
    ended_ns=st.none() | TIMES_NS,
    ip_addresses=SOME_ADDRESSES,
    host_network=st.sampled_from([False, False, False, True]),
)
services = st.builds(
    Service,
    namespace=st.sampled_from(NAMES[:2]),
    name=st.sampled_from(NAMES),
    selector=LABELS,
    created_ns=st.none() | TIMES_NS,
    ip_addresses=st.lists(st.sampled_from(ADDRESSES), max_size=1).map(tuple),
)


def identity(thing: Pod | Service) -> tuple[object, ...]:
    return thing.namespace, thing.name, thing.created_ns


inventories = st.builds(
    Inventory,
    pods=st.lists(pods, max_size=6, unique_by=identity).map(tuple),
    services=st.lists(services, max_size=4, unique_by=identity).map(tuple),
)


def latest(things: Iterable[Any], ip: str, time_ns: int) -> Any:  # noqa: ANN401 - Pod or Service
    """Return what has `ip` and began last at or before `time_ns`."""

    def began(thing: Pod | Service) -> tuple[float, str, str]:
        start = float("-inf") if thing.created_ns is None else thing.created_ns
        return start, thing.namespace, thing.name

    known = [thing for thing in things if ip in thing.ip_addresses and began(thing)[0] <= time_ns]
    return max(known, key=began, default=None)


def truth(inventory: Inventory, ip: str, time_ns: int) -> tuple[str | None, str | None, str | None]:
    service = latest(inventory.services, ip, time_ns)
    if service is not None:
        return service.namespace, f"{service.name}.{service.namespace}", None
    pod = latest((pod for pod in inventory.pods if not pod.host_network), ip, time_ns)
    if pod is None or (pod.ended_ns is not None and time_ns >= pod.ended_ns):
        return None, None, None
    selecting = sorted(
        service.name
        for service in inventory.services
        if service.namespace == pod.namespace
        and service.selector
        and all(pod.labels.get(key) == value for key, value in service.selector.items())
    )
    return pod.namespace, f"{selecting[0]}.{pod.namespace}" if selecting else None, pod.name


def asked(rows: Sequence[tuple[str | None, int | None]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"ip": pl.String, "time_ns": pl.Int64}, orient="row")


@given(inventories, st.randoms(use_true_random=False))
def test_lookup_is_the_naive_reading_of_the_rules(inventory: Inventory, random: Any) -> None:  # noqa: ANN401
    questions = list(itertools.product(ADDRESSES, range(-1, 8)))
    random.shuffle(questions)
    found = Entities.from_inventory(inventory).lookup(asked(questions))
    assert found.columns == ["namespace", "service", "instance"]
    assert found.rows() == [truth(inventory, ip, time_ns) for ip, time_ns in questions]


@given(inventories)
def test_the_table_is_sorted_and_its_intervals_do_not_overlap(inventory: Inventory) -> None:
    table = Entities.from_inventory(inventory).addresses
    assert table.schema == ADDRESS_SCHEMA
    assert table.equals(table.sort("ip", "start_ns"))
    ends_before_next = table["end_ns"] <= table["start_ns"].shift(-1)
    assert (ends_before_next | (table["ip"] != table["ip"].shift(-1))).drop_nulls().all()
    assert (table["start_ns"] < table["end_ns"]).all()


@given(inventories)
def test_between_two_boundaries_nothing_changes(inventory: Inventory) -> None:
    entities = Entities.from_inventory(inventory)
    boundaries = entities.boundaries_ns.to_list()
    assert boundaries == sorted(set(boundaries))
    for ip, time_ns in itertools.product(ADDRESSES, range(-1, 8)):
        if truth(inventory, ip, time_ns) != truth(inventory, ip, time_ns - 1):
            assert time_ns in boundaries


def test_an_empty_table_knows_nobody() -> None:
    entities = Entities.empty()
    assert entities.addresses.schema == ADDRESS_SCHEMA
    assert entities.boundaries_ns.to_list() == []
    assert entities.lookup(asked([("10.0.0.1", 0)])).rows() == [(None, None, None)]
    assert entities.lookup(asked([])).dtypes == [pl.String] * 3


# Dumps


def pod(name: str, **status: object) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}"},
        "spec": {"containers": [{"name": "main", "ports": [{"containerPort": 80}]}]},
        "status": status,
    }


def service(name: str, **spec: object) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def listed(*items: object, kind: str = "List") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "items": list(items)}


def save(folder: Path, *documents: object, name: str = "dump.yaml") -> Path:
    path = folder / name
    text = json.dumps(documents[0]) if path.suffix == ".json" else yaml.safe_dump_all(documents)
    path.write_text(text, encoding="utf-8")
    return path


def test_unknown_addresses_and_nulls_are_nobody(tmp_path: Path) -> None:
    entities = read_entities(save(tmp_path, pod("p", podIP="10.0.0.1")))
    rows = [("", 0), (None, 0), ("10.0.0.1", None), ("10.0.0.1.", 0), ("no address", 0)]
    assert entities.lookup(asked(rows)).rows() == [(None, None, None)] * len(rows)


def test_mapped_ipv4_addresses_are_ipv4_on_both_sides(tmp_path: Path) -> None:
    things = [pod("p", podIP="::ffff:10.0.0.1"), pod("q", podIP="FD00:0::0001")]
    rows = [("10.0.0.1", 0), ("::ffff:10.0.0.1", 0), ("::FFFF:10.0.0.1", 0), ("fd00::1", 0)]
    found = read_entities(save(tmp_path, listed(*things))).lookup(asked(rows))
    assert found["instance"].to_list() == ["p"] * 3 + ["q"]


PRODUCT = """\
apiVersion: v1
items:
- apiVersion: v1
  kind: Pod
  metadata:
    annotations: {creationTimestamp: x}
    creationTimestamp: "2024-05-01T10:00:00Z"
    labels:
      app: product
      version: "1"
    name: product-1
    namespace: shop
    resourceVersion: "7"
    uid: uid-1
  spec:
    containers:
    - env: [{name: hostNetwork, value: "true"}]
      name: main
    hostNetwork: false
  status:
    containerStatuses:
    - state:
        terminated: {exitCode: 0, finishedAt: "2024-05-01T10:00:05Z"}
    - state:
        terminated: {exitCode: 0, finishedAt: 2024-05-01T10:00:04Z}
    phase: Succeeded
    podIP: 10.0.0.1
    podIPs:
    - ip: 10.0.0.1
    - ip: fd00:0::1
- apiVersion: v1
  kind: Service
  metadata: {name: product, namespace: shop, creationTimestamp: 2024-05-01T10:00:00+00:00}
  spec:
    clusterIP: 172.16.0.1
    clusterIPs: [172.16.0.1]
    ports: [{port: 80}]
    selector: {app: product}
  status:
    loadBalancer:
      ingress: [{ip: 203.0.113.9}, {hostname: product.example}]
- apiVersion: serving.knative.dev/v1
  kind: Service
  metadata: {name: other}
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: product}}
kind: List
"""
PRODUCT_POD = Pod(
    namespace="shop",
    name="product-1",
    uid="uid-1",
    labels={"app": "product", "version": "1"},
    created_ns=TEN_O_CLOCK_NS,
    ended_ns=TEN_O_CLOCK_NS + 5_000_000_000,
    ip_addresses=("10.0.0.1", "fd00::1"),
    host_network=False,
)
PRODUCT_SERVICE = Service(
    namespace="shop",
    name="product",
    selector={"app": "product"},
    created_ns=TEN_O_CLOCK_NS,
    ip_addresses=("172.16.0.1", "203.0.113.9"),
)
PRODUCT_JSON = json.dumps(yaml.safe_load(PRODUCT), default=lambda time: time.isoformat())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.yaml", PRODUCT.encode()),
        ("list.json", PRODUCT_JSON.encode()),
        ("flow.yaml", yaml.safe_dump(yaml.safe_load(PRODUCT_JSON), default_flow_style=True)),
        ("powershell.yaml", PRODUCT.encode("utf-16")),
        ("windows.yaml", PRODUCT.replace("\n", "\r\n").encode("utf-8-sig")),
        ("documents.yaml", f"---\n{PRODUCT}---\n---\nkind: Node\n"),
    ],
)
def test_a_list_in_any_format(tmp_path: Path, name: str, content: str | bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_dump([path]) == Inventory((PRODUCT_POD,), (PRODUCT_SERVICE,))


def test_single_objects_typed_lists_and_shared_values(tmp_path: Path) -> None:
    bare = {"metadata": {"name": "bare"}}
    labels = {"app": "a"}
    shared = [{**pod(name), "spec": {"template": labels}} for name in "pq"]
    for one in shared:
        one["metadata"]["labels"] = labels
    documents = [pod("single"), listed(bare, kind="PodList"), listed(*shared), listed(kind="List")]
    found = read_dump([save(tmp_path, *documents)]).pods
    names = [(one.namespace, one.name, dict(one.labels)) for one in found]
    assert names == [
        ("default", "bare", {}),
        ("shop", "p", labels),
        ("shop", "q", labels),
        ("shop", "single", {}),
    ]


def test_a_folder_and_several_paths(tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    folder.mkdir()
    save(folder, pod("a"), name="a.yaml")
    save(folder, listed(pod("b")), name="b.json")
    save(folder, {"kind": "Node"}, name="nodes.yml")
    (folder / "notes.txt").write_text("not a dump", encoding="utf-8")
    inventory = read_dump([folder, str(save(tmp_path, service("c"), pod("a")))])
    assert [one.name for one in inventory.pods] == ["a", "b"]
    assert [one.name for one in inventory.services] == ["c"]


def test_no_path_is_an_empty_table() -> None:
    assert read_entities().addresses.is_empty()


def test_missing_fields_are_tolerated(tmp_path: Path) -> None:
    metadata = {"name": "p", "namespace": None, "labels": None, "creationTimestamp": None}
    documents = [{"kind": "Pod", "metadata": metadata}, {"kind": "Service", "metadata": metadata}]
    inventory = read_dump([save(tmp_path, *documents)])
    assert inventory.pods == (Pod("default", "p", "", {}, None, None, (), host_network=False),)
    assert inventory.services == (Service("default", "p", {}, None, ()),)


def test_services_without_an_address(tmp_path: Path) -> None:
    headless = service("h", clusterIP="None", clusterIPs=["None"], selector={"app": "a"})
    path = save(tmp_path, headless, service("external", clusterIP=""))
    assert [one.ip_addresses for one in read_dump([path]).services] == [(), ()]


def finished(*seconds: float | None) -> list[dict[str, Any]]:
    ends = [None if one is None else f"1970-01-01T00:00:0{one}Z" for one in seconds]
    return [{"state": {"terminated": {"exitCode": 0, "finishedAt": end}}} for end in ends]


@pytest.mark.parametrize(
    ("status", "deleted", "ended_ns"),
    [
        ({"phase": "Running", "containerStatuses": finished(1.0)}, None, None),
        ({"phase": "Running"}, "1970-01-01T02:00:03+02:00", None),
        ({"phase": "Failed"}, None, None),
        ({"phase": "Failed"}, "1970-01-01T02:00:03+02:00", 3_000_000_000),
        ({"phase": "Failed", "containerStatuses": finished(1.0)}, "x", 1_000_000_000),
        ({"phase": "Failed", "initContainerStatuses": finished(2.0)}, None, 2_000_000_000),
        ({"phase": "Succeeded", "containerStatuses": finished(1.5, None)}, None, 1_500_000_000),
    ],
)
def test_when_a_pod_ended(
    tmp_path: Path, status: dict[str, Any], deleted: str | None, ended_ns: int | None
) -> None:
    one = pod("p", **status)
    one["metadata"]["deletionTimestamp"] = deleted
    assert read_dump([save(tmp_path, one)]).pods[0].ended_ns == ended_ns


def seen(version: int, app: str, uid: str = "u", **status: object) -> dict[str, Any]:
    one = pod("p", **status)
    one["metadata"] |= {
        "uid": uid,
        "labels": {"app": app},
        "resourceVersion": str(version),
        "creationTimestamp": "2024-05-01T10:00:00Z",
    }
    return one


def test_several_dumps_of_one_cluster_in_any_order(tmp_path: Path) -> None:
    dumps = [
        save(tmp_path, seen(9, "late", podIP="10.0.0.1"), name="1.yaml"),
        save(tmp_path, seen(10, "latest", podIP="10.0.0.2"), name="2.yaml"),
        save(
            tmp_path, seen(8, "x", phase="Failed", containerStatuses=finished(9.0)), name="3.yaml"
        ),
        save(tmp_path, seen(7, "without uid", uid="", podIP="10.0.0.3"), name="4.json"),
        save(tmp_path, seen(11, "other", uid="v", podIP="10.0.0.4"), name="5.yaml"),
    ]
    dumps[4].write_text(dumps[4].read_text("utf-8").replace("T10:00", "T11:00"), "utf-8")
    first = Pod(
        namespace="shop",
        name="p",
        uid="u",
        labels={"app": "latest"},
        created_ns=TEN_O_CLOCK_NS,
        ended_ns=9_000_000_000,
        ip_addresses=("10.0.0.3", "10.0.0.1", "10.0.0.2"),
        host_network=False,
    )
    results = [read_dump(order) for order in itertools.permutations(dumps)]
    assert results[0].pods[0] == first
    assert [one.uid for one in results[0].pods] == ["u", "v"]
    assert all(result == results[0] for result in results)


def message(path: Path) -> str:
    with pytest.raises(EntitiesError) as caught:
        read_entities(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", ": the file is empty"),
        (b" \n\n", ": the file is empty"),
        (b"\x1f\x8b\x08", ": not a text file (byte 1 cannot be decoded)"),
        (b"\xff\xfea", ": not a text file (byte 2 cannot be decoded)"),
        (b"PK\x03\x04", f": neither YAML nor JSON: unacceptable character #x0003: {NO_CONTROL}"),
        (
            b"kind: List\nitems:\n- a: b: c\n",
            ":3:7: neither YAML nor JSON: mapping values are not allowed in this context",
        ),
        (
            b'{"kind": "List",\n "items": [',
            ":3:1: neither YAML nor JSON: did not find expected node content",
        ),
        (b"a: *b", ":1:4: neither YAML nor JSON: unknown alias *b"),
        (b"[a]: b", ":1:1: neither YAML nor JSON: a collection cannot be a key"),
        (b"- " * 50_000, ": nested too deeply"),
        (b'{"a":' * 50_000, ": nested too deeply"),
        (b"---\n---\n", ": neither a Pod nor a Service in it"),
        (b"kind: List\nitems: []", ": neither a Pod nor a Service in it"),
        (b'kind: "a\\nb"', ": neither a Pod nor a Service in it, only a b"),
        (b"a: b", ": neither a Pod nor a Service in it, only objects without a kind"),
        (
            b"kind: List\nitems: [{kind: Node}, {kind: Job, apiVersion: batch/v1}, {kind: Node}]",
            ": neither a Pod nor a Service in it, only Job (batch/v1), Node",
        ),
    ],
)
def test_not_a_dump(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "dump.yaml"
    path.write_bytes(content)
    assert message(path) == f"{path}{problem}{AGAIN}"


def replaced(path: str, value: object) -> dict[str, Any]:
    """Put `value` at the dotted `path` of a Pod."""
    thing = pod("p")
    inner: dict[str, Any] = thing
    *outer, last = path.split(".")
    for key in outer:
        inner = inner.setdefault(key, {})
    inner[last] = value
    return thing


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("text", ': this is "text", not a mapping'),
        ({"kind": ["Pod"]}, ": kind is a list, not text"),
        ({"kind": "List", "items": "x"}, ': items is "x", not a list'),
        (listed(pod("p"), "x"), ': items[1]: this is "x", not a mapping'),
        (replaced("metadata", []), ": Pod: metadata is a list, not a mapping"),
        (replaced("metadata", {}), ": Pod: metadata.name is missing"),
        (listed(replaced("metadata.name", "")), ": items[0] Pod: metadata.name is missing"),
        (replaced("metadata.name", {}), ": Pod: metadata.name is a mapping, not text"),
        (
            listed(service("s", selector=1)),
            ': items[0] Service shop/s: spec.selector is "1", not a mapping',
        ),
        (service("s", clusterIPs=[True]), ": Service shop/s: spec.clusterIPs[0] is true, not text"),
    ],
)
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_objects_of_the_wrong_type(
    tmp_path: Path, document: object, problem: str, suffix: str
) -> None:
    path = save(tmp_path, document, name=f"dump{suffix}")
    assert message(path) == f"{path}{problem}{CORRECT}"


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("metadata.labels", [], "is a list, not a mapping"),
        ("metadata.labels.app", {"a": "b"}, "is a mapping, not text"),
        ("metadata.uid", "\ud800", 'is "\\ud800", not text'),
        ("metadata.creationTimestamp", "x" * 50, f'is "{"x" * 39}..., not a timestamp'),
        ("metadata.creationTimestamp", 17, 'is "17", not a timestamp'),
        (
            "metadata.creationTimestamp",
            "9999-12-31",
            'is "9999-12-31", not a time from 1678 to 2261',
        ),
        ("spec.hostNetwork", "yes", 'is "yes", not true or false'),
        ("status.podIP", "10.0.0.256", 'is "10.0.0.256", not an IP address'),
        ("status.podIPs", {}, "is a mapping, not a list"),
    ],
)
def test_fields_of_the_wrong_type(tmp_path: Path, field: str, value: object, problem: str) -> None:
    path = save(tmp_path, listed(pod("o"), replaced(field, value)), name="dump.json")
    assert message(path) == f"{path}: items[1] Pod shop/p: {field} {problem}{CORRECT}"


def test_keys_of_the_wrong_type(tmp_path: Path) -> None:
    path = save(tmp_path, replaced("metadata.labels", {True: "x"}))
    problem = "metadata.labels is a mapping, not a mapping with text for every key"
    assert message(path) == f"{path}: Pod shop/p: {problem}{CORRECT}"


def test_the_place_in_several_documents(tmp_path: Path) -> None:
    path = save(tmp_path, pod("o"), listed(replaced("status", "x")))
    problem = ': document 2 items[0] Pod shop/p: status is "x", not a mapping'
    assert message(path) == f"{path}{problem}{CORRECT}"


def test_missing_files_and_empty_folders(tmp_path: Path) -> None:
    path = tmp_path / "missing.yaml"
    check = "; check the path and its permissions"
    assert message(path) == f"{path}: no such file or directory{check}"
    assert message(tmp_path) == f"{tmp_path}: no *.yaml, *.yml or *.json file in this folder{AGAIN}"
    path.mkdir()
    assert message(tmp_path) == f"{path}: is a directory{check}"


def test_a_folder_of_other_kinds(tmp_path: Path) -> None:
    save(tmp_path, {"kind": "Node"})
    problem = ": neither a Pod nor a Service in it, only Node"
    assert message(tmp_path) == f"{tmp_path}{problem}{AGAIN}"
