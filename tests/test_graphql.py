"""GraphQL as SkyWalking's clients ask it, over what an OAP was fed and what it answered."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import graphql_fuzz
import graphql_golden
import httpx
import pytest
from graphql_serving import Asked, served
from processes import ending, free_port, signal_a_thread
from waiting import DEADLINE_S, wait_until

from framewalk.engine import Plan, Store
from framewalk.engine.errors import InputError
from framewalk.queries.graphql.answers.templates import Templates
from framewalk.queries.graphql.documents import Documents
from framewalk.queries.panels import shipped_pages

RANGE = {"start": "2026-11-28 1355", "end": "2026-11-28 1405", "step": "MINUTE"}
A = {"serviceName": "productpage.bookinfo", "normal": True}
A_ID = base64.b64encode(b"productpage.bookinfo").decode() + ".1"
EXEC = "execExpression(expression: $x, entity: $e, duration: $d)"
HEAD = "query ($x: String!, $e: Entity!, $d: Duration!)"
RESULT = "{ type error results { metric { labels { key value } } values { id value } } }"


@pytest.fixture(scope="module")
def store(
    golden_store: Path, plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    path = shutil.copy(golden_store, tmp_path_factory.mktemp("graphql") / "golden.duckdb")
    with Store(Path(path), plan) as store:
        yield store


@pytest.fixture(scope="module")
def asked(store: Store) -> Iterator[Asked]:
    with served(store.connection, shown_port=graphql_golden.PORT) as asked:
        yield asked


@pytest.fixture(scope="module")
def empty(empty_store: Path) -> Iterator[Asked]:
    with duckdb.connect(empty_store, read_only=True) as connection, served(connection) as asked:
        yield asked


# What an OAP answered


def test_a_sample_of_recorded_requests_is_answered_as_recorded(asked: Asked, empty: Asked) -> None:
    known = graphql_golden.differences()
    sample = graphql_golden.recorded()[::11]
    compared = [graphql_golden.compared(asked, empty, one, known) for one in sample]
    assert [str(one) for one in compared if not one.is_right] == []
    assert sum(not one.difference for one in compared) > 0.88 * len(compared)


def test_each_difference_has_a_reason_and_requests() -> None:
    ids = [one["id"] for one in graphql_golden.recorded()]
    for entry in graphql_golden.differences():
        assert entry.kind
        assert len(entry.reason) > 20
        assert entry.part in {"", "ours", "theirs"}
        for pattern in entry.ids:
            assert any(replace(entry, ids=(pattern,)).has(one) for one in ids), pattern


def test_a_difference_without_a_reason_is_wrong() -> None:
    different = graphql_golden.Compared("meta/listLayers", "ours .. theirs ..", None, "")
    assert not different.is_right
    listed = next(one for one in graphql_golden.differences() if one.has("meta/listLayers"))
    assert replace(different, listed=listed).is_right
    assert not replace(different, listed=listed, left="ours has another layer").is_right


def test_what_ztunnel_carries_for_is_in_a_mesh_too(asked: Asked) -> None:
    query = "query ($l: String) { listServices(layer: $l) { id name layers } }"
    layers = {one["name"]: one["layers"] for one in asked.data(query)["listServices"]}
    assert sorted(layers["productpage.bookinfo"]) == ["K8S_SERVICE", "MESH"]
    assert layers["details.bookinfo"] == ["K8S_SERVICE"]
    names = {one["name"] for one in asked.data(query, l="MESH")["listServices"]}
    assert names == {name for name, own in layers.items() if "MESH" in own}
    above = "{ relations { upperService { id layer } lowerService { id layer } } }"
    query = (
        f"query ($i: ID!, $l: String!) {{ getServiceHierarchy(serviceId: $i, layer: $l) {above} }}"
    )
    (relation,) = asked.data(query, i=A_ID, l="MESH")["getServiceHierarchy"]["relations"]
    assert relation == {
        "upperService": {"id": A_ID, "layer": "MESH"},
        "lowerService": {"id": A_ID, "layer": "K8S_SERVICE"},
    }
    for identifier, layer in ((A_ID, "GENERAL"), (A_ID[1:], "MESH"), ("ZGV0YWlscw==.1", "MESH")):
        found = asked.data(query, i=identifier, l=layer)["getServiceHierarchy"]
        assert found == {"relations": []}


# The envelope


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{version}", "application/graphql", 200),
        (b'{"query":"{version}"}', "application/json; charset=utf-8", 200),
        (b'{"query":"{version}","variables":null,"operationName":null}', "application/json", 200),
        (b'{"query":"{version"}', "application/json", 200),
        (b'{"query":"query($a:String!){listServices(layer:$a){id}}"}', "application/json", 200),
        (b'{"query":"{nope}"}', "application/json", 400),
        (b'{"query":"{version} {version}"}', "application/json", 400),
        (b'{"query":"query a{version} query b{version}"}', "application/json", 400),
        (b'{"query":"  "}', "application/json", 400),
        (b'{"query":"\\ud800"}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"query":"{version}"}', "text/plain", 415),
        (b'{"query":"' + b" " * (1 << 20) + b'"}', "application/json", 413),
    ],
)
def test_statuses(asked: Asked, body: bytes, kind: str, status: int) -> None:
    answer = asked.send("POST", "/graphql", body, **{"content-type": kind})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert set(found) & {"data", "errors", "error"}


def test_only_post_and_the_form_of_answer_that_is_asked_for(asked: Asked) -> None:
    assert asked.send("GET", "/graphql").status_code == 405
    kind = "application/graphql-response+json"
    headers = {"content-type": "application/json", "accept": kind}
    answer = asked.send("POST", "/graphql", b'{"query":"{version}"}', **headers)
    assert answer.headers["content-type"] == kind


def test_errors_say_where_and_of_which_kind(asked: Asked) -> None:
    (error,) = asked.ask("{ version\n nope }", 400)["errors"]
    assert error["locations"] == [{"line": 2, "column": 2}]
    assert error["extensions"] == {"classification": "ValidationError"}
    wrong = RANGE | {"end": "2026-11-28 1354"}
    answer = asked.ask(f"{HEAD} {{ a: version b: {EXEC} {RESULT} }}", x="1", e=A, d=wrong)
    assert answer["data"] is None
    assert answer["errors"][0]["path"] == ["b"]
    assert answer["errors"][0]["extensions"] == {"classification": "DataFetchingException"}


def test_clients_can_ask_for_the_schema(asked: Asked) -> None:
    found = asked.data('{ __type(name: "Query") { fields { name } } __schema { types { name } } }')
    assert {"queryAlarms", "execExpression"} <= {one["name"] for one in found["__type"]["fields"]}
    assert {"name": "Duration"} in found["__schema"]["types"]


# Limits


def nested(depth: int) -> str:
    return "{ getMenuItems " + "{ subItems " * (depth - 2) + "{ title }" + " }" * (depth - 1)


def test_limits_of_a_document(asked: Asked) -> None:
    assert "errors" not in asked.ask(nested(12))
    for document in (
        nested(13),
        "{ " + " ".join(f"a{number}: version" for number in range(2_001)) + " }",
        # A document of a thousand characters that would be thousands of millions of fields.
        "{ getMenuItems { ...f0 } } "
        + " ".join(
            f"fragment f{at} on MenuItem {{ a: subItems {{ ...f{at + 1} }} "
            f"b: subItems {{ ...f{at + 1} }} c: subItems {{ ...f{at + 1} }} }}"
            for at in range(10)
        )
        + " fragment f10 on MenuItem { title }",
        "{ " + "getMenuItems { title } " * 2_001 + "}",
    ):
        (error,) = asked.ask(document, 400)["errors"]
        assert "at most" in error["message"]
    answer = asked.ask("{" * 5_000)
    assert answer["errors"][0]["extensions"] == {"classification": "InvalidSyntax"}


def test_a_large_document_is_checked_where_its_variables_are_used(asked: Asked) -> None:
    filling = " ".join(f"a{number}: version" for number in range(1_900))
    assert len(filling) > 20_000
    query = f"query ($l: [String!]!) {{ listServices(layer: $l) {{ id }} {filling} }}"
    (error,) = asked.ask(query, l=["x"])["errors"]
    assert "Argument 'layer' is no String" in error["message"]
    asked.ask(f"{{ listServices(layer: 1) {{ id }} {filling} }}", 400)
    assert len(asked.data(f"{{ {filling} }}")) == 1_900


def test_a_thousand_of_each_kind_of_request_and_no_fault(asked: Asked) -> None:
    statuses = graphql_fuzz.ask_all(asked, 0, 2_000)
    assert statuses[200] > 1_000
    assert statuses[400] > 200


def test_documents_are_remembered_within_bounds() -> None:
    documents = Documents(2_000, 12)
    short = "{ version }"
    first = documents.read(short)
    assert documents.read(short) is first
    long = [f"# {'x' * 10_000}\n{{ b{number}: version }}" for number in range(120)]
    assert sum(map(len, long)) > 1 << 20
    for text in long:
        documents.read(text)
    assert documents.kept(short) is None
    assert documents.kept(long[0]) is None
    assert documents.kept(long[-1]) is not None


# Expressions


def test_one_bad_expression_among_five(asked: Asked) -> None:
    fields = [
        f'e{number}: execExpression(expression: "{text}", entity: $e, duration: $d) {RESULT}'
        for number, text in enumerate(
            ("avg(kubernetes_service_http_call_cpm)", "1", "avg(", "no_such", "2")
        )
    ]
    found = asked.data(f"query ($e: Entity!, $d: Duration!) {{ {' '.join(fields)} }}", e=A, d=RANGE)
    assert [bool(one["error"]) for one in found.values()] == [False, False, True, True, False]
    assert found["e0"]["results"][0]["values"] == [{"id": None, "value": "258.286"}]
    assert found["e2"]["type"] == found["e3"]["type"] == "UNKNOWN"


def test_what_is_wanted_of_values_and_under_which_names(asked: Asked) -> None:
    selection = (
        "{ __typename kind: type results { m: metric { labels { k: key v: value } } "
        "vs: values { __typename v: value ...id owner { s: serviceName } } } }"
    )
    query = f"{HEAD} {{ {EXEC} {selection} }} fragment id on MQEValue {{ i: id }}"
    text = "top_n(kubernetes_service_http_call_cpm, 1, des)"
    found = asked.data(query, x=text, e={}, d=RANGE)["execExpression"]
    assert found == {
        "__typename": "ExpressionResult",
        "kind": "SORTED_LIST",
        "results": [
            {
                "m": {"labels": []},
                "vs": [
                    {
                        "__typename": "MQEValue",
                        "v": "258",
                        "i": "productpage.bookinfo",
                        "owner": {"s": "productpage.bookinfo"},
                    }
                ],
            }
        ],
    }


def test_a_sorted_list_of_nothing_has_one_series(asked: Asked) -> None:
    empty_range = {"start": "2026-11-28 1100", "end": "2026-11-28 1110", "step": "MINUTE"}
    text = "top_n(kubernetes_service_http_call_cpm, 5, des)"
    found = asked.data(f"{HEAD} {{ {EXEC} {RESULT} }}", x=text, e={}, d=empty_range)
    assert found["execExpression"]["results"] == [{"metric": {"labels": []}, "values": []}]


def test_seconds_have_the_value_of_their_minute_at_its_first(asked: Asked) -> None:
    seconds = {"start": "2026-11-28 135930", "end": "2026-11-28 140030", "step": "SECOND"}
    text = "kubernetes_service_http_call_cpm"
    query = f"{HEAD} {{ {EXEC} {RESULT} }}"
    (series,) = asked.data(query, x=text, e=A, d=seconds)["execExpression"]["results"]
    values = [one["value"] for one in series["values"]]
    assert len(values) == 61
    minute = {"start": "2026-11-28 1400", "end": "2026-11-28 1400", "step": "MINUTE"}
    (whole,) = asked.data(query, x=text, e=A, d=minute)["execExpression"]["results"]
    assert [value for value in values if value is not None] == [whole["values"][0]["value"]]
    assert series["values"][30] == whole["values"][0]
    none = seconds | {"end": "2026-11-28 135940"}
    (series,) = asked.data(query, x=text, e=A, d=none)["execExpression"]["results"]
    assert [one["value"] for one in series["values"]] == [None] * 11


# Names that go round


def test_a_name_with_everything_in_it_goes_round(few_plan: Plan) -> None:
    service, endpoint = "größe::shop/käse." + "x" * 120, "GET:/ä?b=1 '\"%_{}"
    with Store(":memory:", few_plan) as store:
        entities = (
            ("service", "service", (service,)),
            ("endpoint", "service, endpoint", (service, endpoint)),
        )
        for view, names, values in entities:
            marks = ", ".join("?" * len(values))
            store.connection.execute(
                f"INSERT INTO internal.{view}_entities (entity, {names}) VALUES (1, {marks})",
                values,
            )
            store.connection.execute(
                f"INSERT INTO internal.{view}_seen VALUES "
                "(1, TIMESTAMP '2026-11-28 14:00', TIMESTAMP '2026-11-28 14:00', 0)"
            )
        with served(store.connection) as asked:
            query = "query ($n: String!) { s: findService(serviceName: $n) { id group shortName } }"
            found = asked.data(query, n=service)["s"]
            assert (found["group"], found["shortName"]) == ("größe", service[7:])
            query = "query ($i: ID!) { e: findEndpoint(serviceId: $i, limit: 9) { id name } }"
            (one,) = asked.data(query, i=found["id"])["e"]
            assert one["name"] == endpoint
            query = "query ($i: ID!) { e: getEndpointInfo(endpointId: $i) { name serviceName } }"
            info = asked.data(query, i=one["id"])["e"]
            assert info == {"name": endpoint, "serviceName": service}


# Topology


def test_endpoints_that_call_and_are_called(asked: Asked) -> None:
    query = """query ($i: ID!, $d: Duration!) {
        getEndpointDependencies(endpointId: $i, duration: $d)
        { nodes { name serviceName } calls { source target detectPoints } } }"""
    identifier = f"{A_ID}_{base64.b64encode(b'GET:/productpage').decode()}"
    found = asked.data(query, i=identifier, d=RANGE)["getEndpointDependencies"]
    called = {one["target"] for one in found["calls"]}
    assert identifier in called
    assert {"name": "GET:/productpage", "serviceName": "productpage.bookinfo"} in found["nodes"]
    assert all(one["detectPoints"] == ["SERVER"] for one in found["calls"])


def test_whoever_debugs_gets_the_statements_that_are_read(asked: Asked, store: Store) -> None:
    text = "execExpression(expression: $x, entity: $e, duration: $d, debug: true)"
    trace = "debuggingTrace { condition spans { operation msg } }"
    query = f"{HEAD} {{ a: {text} {{ results {{ values {{ value }} }} {trace} }} }}"
    expression = "sum(kubernetes_service_http_call_cpm)"
    found = asked.data(query, x=expression, e=A, d=RANGE)["a"]
    assert found["debuggingTrace"]["condition"] == expression
    whole, *statements = found["debuggingTrace"]["spans"]
    assert whole == {"operation": "MQE", "msg": expression}
    rows = [store.connection.cursor().execute(one["msg"]).fetchall() for one in statements]
    (value,) = found["results"][0]["values"]
    assert sum(row[-1] for row in rows[0]) == int(value["value"]) > 0
    plain = asked.data(query.replace(", debug: true", ""), x=expression, e=A, d=RANGE)["a"]
    assert plain == {**found, "debuggingTrace": None}


# Dashboards


def test_dashboards_of_files_are_read_and_edits_kept_beside_them(tmp_path: Path) -> None:
    file = tmp_path / "given" / "root.json"
    file.parent.mkdir()
    page = '{"layer": "K8S_SERVICE", "entity": "All", "name": "R", "u": "a//b"}'
    text = f'// of ours\n[{{"id": "root", "configuration": /* a page */ {page}}}]'
    file.write_text(text)
    edits = tmp_path / "edits.json"
    given = Templates([file.parent], edits)
    assert given.all() == [{"id": "root", "configuration": page}]
    assert given.change("root", '{"name": "other"}')["status"] is True
    assert given.change("nobody", "{}")["status"] is False
    assert given.change("root", "[]")["status"] is False
    new = given.add('{"name": "new"}')
    again = Templates([file.parent], edits)
    assert {one["id"] for one in again.all()} == {"root", new["id"]}
    assert again.get("root") == {"id": "root", "configuration": '{"name": "other"}'}
    # Where editing is off again, what was edited is still shown.
    closed = Templates([file.parent], edits, keeps_edits=False)
    assert closed.all() == again.all()
    assert closed.hide("root")["status"] is False
    assert again.hide("root")["status"] is True
    assert Templates([file.parent], edits).get("root") is None
    assert file.read_text() == text
    file.write_text("[{}]")
    with pytest.raises(InputError, match="configuration"):
        Templates([file], None)


def test_files_of_dashboards_that_change_are_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def page(name: str) -> str:
        shown = {"layer": "K8S_SERVICE", "entity": "All", "name": name, "children": []}
        return json.dumps([{"id": name, "configuration": shown}])

    file = tmp_path / "mine.json"
    file.write_text(page("one"))
    given = Templates([tmp_path], tmp_path / "edits")
    file.write_text(page("another"))
    (tmp_path / "more.json").write_text(page("more"))
    assert {one["id"] for one in given.all()} == {"another", "more"}
    assert given.change("more", "{}")["status"] is True
    file.write_text("[{}]")
    for _ in range(3):
        assert {one["id"] for one in given.all()} == {"another", "more"}
    (told,) = caplog.messages
    assert told.startswith(f"pages of panels are not read again, the old ones stay: {file}: [0]")
    file.unlink()
    assert [one["id"] for one in given.all()] == ["more"]


def test_without_files_there_are_the_shipped_dashboards(asked: Asked) -> None:
    found = asked.data("{ getAllTemplates { id configuration } }")["getAllTemplates"]
    pages = {one.id: one.content for one in shipped_pages()}
    assert {one["id"]: json.loads(one["configuration"]) for one in found} == pages


def test_edits_are_refused_in_words(asked: Asked) -> None:
    query = 'mutation { addTemplate(setting: {configuration: "{}"}) { id status message } }'
    told = asked.data(query)["addTemplate"]
    assert told["status"] is False
    assert "SW_ENABLE_UPDATE_UI_TEMPLATE" in told["message"]


# A store that nobody writes


def test_query_server(empty_store: Path, tmp_path: Path) -> None:
    environment = {
        "SW_CORE_REST_PORT": str(free_port()),
        "SW_PROMQL_REST_PORT": str(free_port()),
        "FRAMEWALK_SQL_LISTEN_PORT": str(free_port()),
    }
    store = tmp_path / "metrics.duckdb"
    shutil.copy(empty_store, store)
    store.chmod(0o400)
    command = [Path(sys.executable).with_name("framewalk"), "query-server", "--store", store]
    ports = {name: int(port) for name, port in environment.items()}
    graphql, sql, promql = (
        f"http://127.0.0.1:{ports[name]}{path}"
        for name, path in (
            ("SW_CORE_REST_PORT", "/graphql"),
            ("FRAMEWALK_SQL_LISTEN_PORT", "/sql?query=SELECT 1 AS one"),
            ("SW_PROMQL_REST_PORT", "/api/v1/labels"),
        )
    )
    starting = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE)
    with ending(starting) as server:
        wait_until(lambda: answers(sql) or server.poll() is not None)
        assert httpx.get(sql, timeout=DEADLINE_S).json()["rows"] == [{"one": 1}]
        found = httpx.post(graphql, json={"query": "{ listLayers }"}, timeout=DEADLINE_S)
        assert found.json() == {"data": {"listLayers": ["K8S_SERVICE"]}}
        # The page, which is on the port of SQL, asks it there.
        beside = sql.replace("/sql?query=SELECT 1 AS one", "/graphql")
        found = httpx.post(beside, json={"query": "{ listLayers }"}, timeout=DEADLINE_S)
        assert found.json() == {"data": {"listLayers": ["K8S_SERVICE"]}}
        labels = httpx.get(promql, timeout=DEADLINE_S).json()
        assert labels["status"] == "success"
        page, _, _ = sql.partition("/sql")
        assert httpx.get(f"{page}/api/v1/labels", timeout=DEADLINE_S).json() == labels
        assert (
            httpx.post(
                f"{page}/graphql", json={"query": "{version}"}, timeout=DEADLINE_S
            ).status_code
            == 200
        )
        assert httpx.get(sql.replace(page, promql.partition("/api")[0])).status_code == 404
        assert {path.name for path in tmp_path.iterdir()} == {store.name}
        signal_a_thread(server.pid, signal.SIGTERM)
        told = server.communicate(timeout=DEADLINE_S)[1].decode()
    assert server.returncode == 0
    assert "stopping reason=SIGTERM" in told


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=DEADLINE_S).status_code == 200
    except httpx.TransportError:
        return False
