"""The entity table against a plain reading of docs/semantics.md, and the dumps it is read from."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from reference import load_dump

from framewalk.engine.errors import EntitiesError
from framewalk.engine.kubernetes.addresses import ADDRESS_SCHEMA, Entities, read_entities
from framewalk.engine.kubernetes.dumps import read_dumps
from framewalk.engine.kubernetes.inventory import (
    EndpointSlice,
    History,
    Inventory,
    Node,
    Pod,
    Port,
    Seen,
    Service,
    Sighting,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

AGAIN = "; give the output of 'kubectl get pods,services,endpointslices,nodes -A -o yaml' (or json)"
CORRECT = "; give the dump as kubectl wrote it, or correct this field"
NO_CONTROL = "control characters are not allowed"
TEN_O_CLOCK_NS = 1_714_557_600_000_000_000

# Made objects: few names, addresses and moments, so that they meet.

ADDRESSES = ("10.0.0.1", "10.0.0.2", "fd00::1", "192.168.0.1")
PORTS = (0, 80, 443, 9_100)
SECONDS = range(10, 17)
TIMES = st.none() | st.sampled_from(SECONDS).map(lambda second: f"1970-01-01T00:00:{second}Z")
NAMES = st.sampled_from(("a", "b", "bb", "ccc"))
SPACES = st.sampled_from(("one", "two"))
LABELS = st.dictionaries(st.sampled_from("xy"), st.sampled_from("12"), max_size=2)
SOME_ADDRESSES = st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True)
NUMBERS = st.sampled_from(PORTS[1:])


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def condition(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    made = {"type": st.just(kind), "status": st.sampled_from(("True", "False"))}
    return st.fixed_dictionaries({**made, "lastTransitionTime": TIMES})


CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"ports": st.lists(optional(containerPort=NUMBERS, hostPort=NUMBERS), max_size=2)}
    ),
    max_size=1,
)
STATES = st.one_of(
    st.fixed_dictionaries({"running": optional(startedAt=TIMES)}),
    st.fixed_dictionaries({"terminated": optional(startedAt=TIMES, finishedAt=TIMES)}),
)
STATUSES = optional(
    phase=st.sampled_from(("Running", "Running", "Succeeded", "Failed", "Pending")),
    podIPs=SOME_ADDRESSES.map(lambda ips: [{"ip": ip} for ip in ips]),
    hostIP=st.just("192.168.0.1"),
    startTime=TIMES,
    conditions=st.tuples(condition("Ready"), condition("PodReadyToStartContainers")).map(list),
    containerStatuses=st.lists(st.fixed_dictionaries({"state": STATES}), max_size=2),
)
pods = st.fixed_dictionaries(
    {
        "kind": st.just("Pod"),
        "metadata": st.fixed_dictionaries(
            {
                "name": NAMES,
                "namespace": SPACES,
                "labels": LABELS,
                "creationTimestamp": TIMES,
                "deletionTimestamp": TIMES,
            }
        ),
        "spec": optional(hostNetwork=st.booleans(), containers=CONTAINERS, nodeName=st.just("n")),
        "status": STATUSES,
    }
)
services = st.fixed_dictionaries(
    {
        "kind": st.just("Service"),
        "metadata": st.fixed_dictionaries(
            {"name": NAMES, "namespace": SPACES, "creationTimestamp": TIMES}
        ),
        "spec": optional(
            selector=LABELS,
            clusterIP=st.sampled_from((*ADDRESSES[:3], "None", "None", "None")),
            externalIPs=SOME_ADDRESSES,
            ports=st.lists(
                optional(
                    port=NUMBERS, nodePort=NUMBERS, protocol=st.sampled_from(("TCP", "TCP", "UDP"))
                ).filter(lambda port: "port" in port),
                max_size=2,
            ),
        ),
    }
)
slices = st.fixed_dictionaries(
    {
        "apiVersion": st.just("discovery.k8s.io/v1"),
        "kind": st.just("EndpointSlice"),
        "metadata": st.fixed_dictionaries(
            {
                "name": NAMES,
                "namespace": SPACES,
                "labels": NAMES.map(lambda name: {"kubernetes.io/service-name": name}),
                "creationTimestamp": TIMES,
            }
        ),
        "endpoints": SOME_ADDRESSES.map(lambda ips: [{"addresses": ips}]),
        "ports": st.lists(st.fixed_dictionaries({"port": NUMBERS}), max_size=1),
    }
)


def identity(item: dict[str, Any]) -> tuple[object, ...]:
    metadata = item["metadata"]
    return item["kind"], metadata["namespace"], metadata["name"]


dumps = st.tuples(
    st.lists(pods, max_size=5), st.lists(services, max_size=4), st.lists(slices, max_size=2)
).map(lambda kinds: list({identity(item): item for kind in kinds for item in kind}.values()))


def asked(rows: Sequence[tuple[str | None, int | None]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"ip": pl.String, "time_ns": pl.Int64}, orient="row")


def entities_of(folder: Path, items: list[dict[str, Any]]) -> Entities:
    path = folder / "made.json"
    path.write_text(json.dumps({"kind": "List", "items": items}))
    return Entities.of(read_dumps([path] if items else []).inventories)


QUESTIONS = [
    (ip, port, is_called, second * 10**9)
    for ip, port, is_called, second in itertools.product(
        ADDRESSES, PORTS, (True, False), range(SECONDS[0] - 1, SECONDS[-1] + 2)
    )
]
QUESTION = {"ip": pl.String, "port": pl.Int32, "is_called": pl.Boolean, "time_ns": pl.Int64}


# Ready, and nothing else says since when.
READY = {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:10Z"}
READY_ONLY: list[dict[str, Any]] = [
    {
        "kind": "Pod",
        "metadata": {"name": "a", "namespace": "one", "labels": {"x": "1"}},
        "status": {
            "podIPs": [{"ip": "10.0.0.1"}],
            "phase": "Running",
            "conditions": [READY],
        },
    },
    {
        "kind": "Service",
        "metadata": {"name": "a", "namespace": "one"},
        "spec": {"selector": {"x": "1"}},
    },
]


@given(items=dumps)
@example(items=READY_ONLY)
def test_lookup_is_the_naive_reading_of_the_rules(
    tmp_path_factory: pytest.TempPathFactory, items: list[dict[str, Any]]
) -> None:
    entities = entities_of(tmp_path_factory.getbasetemp(), items)
    directory = load_dump(json.dumps({"kind": "List", "items": items}))
    found = entities.lookup(pl.DataFrame(QUESTIONS, schema=QUESTION, orient="row"))
    for (ip, port, is_called, time_ns), got in zip(
        QUESTIONS, found.select("service", "instance").rows(), strict=True
    ):
        want = directory.find(ip, time_ns, port, is_called=is_called)
        has_name = want is not None and want.service
        right = (f"{want.service}.{want.namespace}", want.pod) if has_name else None
        assert (got if got[0] else None) == right, (ip, port, is_called, time_ns)
    assert (found["service"].is_null() == found["reason"].is_not_null()).all()


@given(items=dumps)
def test_the_table_is_sorted_and_its_intervals_do_not_overlap(
    tmp_path_factory: pytest.TempPathFactory, items: list[dict[str, Any]]
) -> None:
    table = entities_of(tmp_path_factory.getbasetemp(), items).addresses
    assert table.schema == ADDRESS_SCHEMA
    key = ("cluster", "ip", "port")
    assert table.equals(table.sort(*key, "start_ns"))
    ends_before_next = table["end_ns"] <= table["start_ns"].shift(-1)
    is_last = pl.any_horizontal(pl.col(one) != pl.col(one).shift(-1) for one in key)
    assert (ends_before_next | table.select(is_last).to_series()).drop_nulls().all()
    assert (table["start_ns"] < table["end_ns"]).all()


@given(items=dumps)
def test_between_two_boundaries_nothing_changes(
    tmp_path_factory: pytest.TempPathFactory, items: list[dict[str, Any]]
) -> None:
    entities = entities_of(tmp_path_factory.getbasetemp(), items)
    boundaries = entities.boundaries_ns.to_list()
    assert boundaries == sorted(set(boundaries))
    frame = pl.DataFrame(QUESTIONS, schema=QUESTION, orient="row")
    now = entities.lookup(frame)
    before = entities.lookup(frame.with_columns(pl.col("time_ns") - 1))
    changed = pl.Series(
        [one != other for one, other in zip(now.rows(), before.rows(), strict=True)],
        dtype=pl.Boolean,
    )
    assert set(frame["time_ns"].filter(changed).to_list()) <= set(boundaries)


def test_an_empty_table_knows_nobody() -> None:
    entities = Entities.empty()
    assert entities.addresses.schema == ADDRESS_SCHEMA
    assert entities.boundaries_ns.to_list() == []
    (found,) = entities.lookup(asked([("10.0.0.1", 0)])).rows(named=True)
    assert (found["service"], found["reason"]) == (None, "outside the cluster")
    assert entities.lookup(asked([])).is_empty()


def test_a_table_is_written_and_read(tmp_path: Path) -> None:
    entities = read_entities(save(tmp_path, pod("p", podIP="10.0.0.1"), service("s")))
    entities.write(tmp_path / "table")
    again = Entities.read(tmp_path / "table")
    assert again.addresses.equals(entities.addresses)


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
    assert entities.lookup(asked(rows))["instance"].to_list() == [None] * len(rows)


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
    start_ns=TEN_O_CLOCK_NS,
    ended_ns=TEN_O_CLOCK_NS + 5_000_000_000,
    is_over=True,
    ip_addresses=("10.0.0.1", "fd00::1"),
)
PRODUCT_SERVICE = Service(
    namespace="shop",
    name="product",
    uid="",
    selector={"app": "product"},
    created_ns=TEN_O_CLOCK_NS,
    ip_addresses=("172.16.0.1",),
    outer_addresses=("203.0.113.9",),
    ports=(Port(80, 0, is_tcp=True),),
)
PRODUCT_JSON = json.dumps(yaml.safe_load(PRODUCT), default=lambda time: time.isoformat())


def inventory_of(*paths: Path | str) -> Inventory:
    read = read_dumps(paths)
    assert read.warnings == ()
    return read.inventories[""]


def newest(histories: tuple[History[Any], ...]) -> list[Any]:
    return [one.newest for one in histories]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.yaml", PRODUCT.encode()),
        ("list.json", PRODUCT_JSON.encode()),
        ("flow.yaml", yaml.safe_dump(yaml.safe_load(PRODUCT_JSON), default_flow_style=True)),
        ("powershell.yaml", PRODUCT.encode("utf-16")),
        ("windows.yaml", PRODUCT.replace("\n", "\r\n").encode("utf-8-sig")),
        ("documents.yaml", f"---\n{PRODUCT}---\n---\nkind: Namespace\n"),
    ],
)
def test_a_list_in_any_format(tmp_path: Path, name: str, content: str | bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    inventory = inventory_of(path)
    assert newest(inventory.pods) == [PRODUCT_POD]
    assert newest(inventory.services) == [PRODUCT_SERVICE]


def test_single_objects_typed_lists_and_shared_values(tmp_path: Path) -> None:
    bare = {"metadata": {"name": "bare"}}
    labels = {"app": "a"}
    shared = [{**pod(name), "spec": {"template": labels}} for name in "pq"]
    for one in shared:
        one["metadata"]["labels"] = labels
    documents = [pod("single"), listed(bare, kind="PodList"), listed(*shared), listed(kind="List")]
    found = newest(inventory_of(save(tmp_path, *documents)).pods)
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
    save(folder, {"kind": "Namespace"}, name="spaces.yml")
    (folder / "notes.txt").write_text("not a dump", encoding="utf-8")
    inventory = inventory_of(folder, str(save(tmp_path, service("c"), pod("a"))))
    assert [one.name for one in newest(inventory.pods)] == ["a", "b"]
    assert [one.name for one in newest(inventory.services)] == ["c"]


def test_no_path_is_an_empty_table() -> None:
    assert read_entities().addresses.is_empty()


def test_missing_fields_are_tolerated(tmp_path: Path) -> None:
    metadata = {"name": "p", "namespace": None, "labels": None, "creationTimestamp": None}
    documents = [{"kind": "Pod", "metadata": metadata}, {"kind": "Service", "metadata": metadata}]
    inventory = inventory_of(save(tmp_path, *documents))
    assert newest(inventory.pods) == [Pod("default", "p", "", {})]
    assert newest(inventory.services) == [Service("default", "p", "", {})]


def test_services_without_an_address(tmp_path: Path) -> None:
    headless = service("h", clusterIP="None", clusterIPs=["None"], selector={"app": "a"})
    path = save(tmp_path, headless, service("external", clusterIP=""))
    assert [one.ip_addresses for one in newest(inventory_of(path).services)] == [(), ()]


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
    assert newest(inventory_of(save(tmp_path, one)).pods)[0].ended_ns == ended_ns


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
    ended = [{"state": {"terminated": {"finishedAt": "2024-05-01T10:00:09Z"}}}]
    saved = [
        save(tmp_path, seen(9, "late", podIP="10.0.0.1"), name="1.yaml"),
        save(tmp_path, seen(10, "latest", podIP="10.0.0.2"), name="2.yaml"),
        save(tmp_path, seen(8, "x", phase="Failed", containerStatuses=ended), name="3.yaml"),
        save(tmp_path, seen(7, "without uid", uid="", podIP="10.0.0.3"), name="4.json"),
        save(tmp_path, seen(11, "other", uid="v", podIP="10.0.0.4"), name="5.yaml"),
    ]
    saved[4].write_text(saved[4].read_text("utf-8").replace("T10:00", "T11:00"), "utf-8")
    inventories = [inventory_of(*order) for order in itertools.permutations(saved)]
    assert all(one == inventories[0] for one in inventories)
    first, other = inventories[0].pods
    assert (first.newest.uid, other.newest.uid) == ("u", "v")
    assert first.newest.labels == {"app": "latest"}
    assert [span.thing.ip_addresses for span in first.spans] == [
        ("10.0.0.3",),
        (),
        ("10.0.0.1",),
        ("10.0.0.2",),
    ]
    # It was seen to have ended before it was seen to run on: both stays known.
    assert {span.thing.ended_ns for span in first.spans} == {None, TEN_O_CLOCK_NS + 9 * 10**9}


def test_histories_are_made_of_their_sightings_again() -> None:
    things = [Pod("s", "p", "u", {"a": str(number // 2)}) for number in range(6)]
    made = [Sighting(Seen(number, number * 10), one) for number, one in enumerate(things)]
    made += [Sighting(Seen(1, 3), Service("s", "x", "", {})), Sighting(Seen(2), Node("n", ""))]
    made += [Sighting(Seen(2, 5), EndpointSlice("s", "e", "", "x"), is_gone=True)]
    inventory = Inventory.of(made)
    assert [(one.first.at_ns, one.last.at_ns) for one in inventory.pods[0].spans] == [
        (0, 10),
        (20, 30),
        (40, 50),
    ]
    assert Inventory.of(inventory.sightings()) == inventory
    assert inventory.slices[0].gone == Seen(2, 5)


def test_what_is_seen_again_was_not_gone() -> None:
    one = Pod("s", "p", "u", {})
    gone = Sighting(Seen(5, 50), one, is_gone=True)
    for seen, is_gone in ((Seen(6, 60), False), (Seen(4, 40), True)):
        inventory = Inventory.of([gone, Sighting(seen, one)])
        assert (inventory.pods[0].gone is not None) == is_gone


def message(path: Path) -> str:
    """Return why nothing can be read, or why something was left out."""
    try:
        (warning,) = read_entities(path).warnings
    except EntitiesError as error:
        return str(error)
    left_out = "; this object is left out"
    assert warning.endswith(left_out)
    return warning.removesuffix(left_out)


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
            b"kind: List\nitems: [{kind: Secret}, {kind: Job, apiVersion: batch/v1}]",
            ": neither a Pod nor a Service in it, only Job (batch/v1), Secret",
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
    save(tmp_path, {"kind": "Secret"})
    problem = ": neither a Pod nor a Service in it, only Secret"
    assert message(tmp_path) == f"{tmp_path}{problem}{AGAIN}"


def test_only_changes_of_these_addresses_matter(tmp_path: Path) -> None:
    """However much else a cluster changes, a batch is not cut into more pieces for it."""
    items = [
        pod(f"p-{number}", podIP=f"10.0.0.{number}", startTime=f"2024-01-01T00:{number:02}:00Z")
        for number in range(1, 50)
    ]
    entities = entities_of(tmp_path, items)
    every = entities.boundaries_ns
    assert every.len() == 49
    sent = [pl.Series(["10.0.0.7", "::ffff:10.0.0.9"]), pl.Series(["", "203.0.113.1"])]
    first_ns, last_ns = int(every[0]) - 1, int(every[-1])
    found = entities.boundaries_of(sent, first_ns, last_ns)
    assert found.to_list() == [every[6], every[8]]
    assert entities.boundaries_of(sent, first_ns, int(every[6])).to_list() == [every[6]]
    assert entities.boundaries_of(sent, int(every[8]), last_ns).is_empty()
