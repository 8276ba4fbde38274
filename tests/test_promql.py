"""The Prometheus API as Grafana uses it, against a store that is really served (promql.md)."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import promql_fuzz
import pytest
from promql_golden import answering, compared, differences, recorded
from promql_serving import OPTIONS, Asked, Json, asked

from framewalk.engine import Plan

CPM = "kubernetes_service_http_call_cpm"
MEAN = "kubernetes_service_http_call_time"
PERCENTILE = "kubernetes_service_percentile"
OF_PRODUCTPAGE = f'{CPM}{{service="productpage.bookinfo"}}'
# 13:55 to 14:05, and 14:02.
START, END, NOW = "1795874100", "1795874700", "1795874520"
TOKEN = "a word"  # noqa: S105 - of a test
RANGE = {"start": START, "end": END}


@pytest.fixture(scope="module")
def answered(
    golden_store: Path, plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Mapping[str, Any]], Asked]]:
    path = shutil.copy(golden_store, tmp_path_factory.mktemp("promql") / "golden.duckdb")
    with answering(Path(path), plan) as store_of:
        yield store_of


@pytest.fixture(scope="module")
def store(answered: Callable[[Mapping[str, Any]], Asked]) -> Asked:
    return answered({"id": "the full one"})


def values(result: Json, label: str = "service") -> dict[str, Any]:
    return {
        one["metric"].get(label, ""): one.get("value", one.get("values"))
        for one in result["result"]
    }


# What Grafana asks with GET and with POST (promql.md, section 1): address, parameters, and a check.
CALLS: list[tuple[str, dict[str, str], Callable[[Any], bool]]] = [
    ("query", {"query": "1+1", "time": "4"}, lambda data: data["result"] == [4, "2"]),
    (
        "query",
        {"query": OF_PRODUCTPAGE, "time": f"{NOW}.25"},
        lambda data: data["result"][0]["value"] == [1795874520.25, "312"],
    ),
    (
        "query_range",
        {"query": OF_PRODUCTPAGE, **RANGE, "step": "60.0", "timeout": "30s"},
        lambda data: data["result"][0]["values"][0] == [1795874160, "1"],
    ),
    ("status/buildinfo", {}, lambda data: data["version"] == "2.55.0" and "features" not in data),
    (
        "label/__name__/values",
        {**RANGE, "limit": "40000"},
        lambda data: {CPM, PERCENTILE} <= set(data) and data == sorted(data),
    ),
    (
        "label/service/values",
        {**RANGE, "match[]": CPM},
        lambda data: "productpage.bookinfo" in data,
    ),
    (
        "label/namespace/values",
        RANGE,
        lambda data: data == ["bookinfo", "boutique", "istio-system"],
    ),
    ("label/cluster/values", {}, lambda data: data == ["shop-eu"]),
    (
        "label/p/values",
        {"match[]": PERCENTILE},
        lambda data: data == ["50", "75", "90", "95", "99"],
    ),
    (
        "label/service/values",
        {"match[]": 'service_traffic{layer="K8S_SERVICE"}'},
        lambda data: "details.bookinfo" in data,
    ),
    (
        "labels",
        RANGE,
        lambda data: {"__name__", "service", "namespace", "dest_service"} <= set(data),
    ),
    ("labels", {"match[]": PERCENTILE}, lambda data: "p" in data and "dest_service" not in data),
    (
        "series",
        {"match[]": OF_PRODUCTPAGE, **RANGE},
        lambda data: [one["service"] for one in data] == ["productpage.bookinfo"],
    ),
    ("series", {"match[]": '{__name__!=""}', "limit": "7"}, lambda data: len(data) == 7),
    (
        "metadata",
        {"metric": CPM, "limit": "1"},
        lambda data: "K8SService" in data[CPM][0]["help"] and data[CPM][0]["type"] == "gauge",
    ),
    ("query_exemplars", {"query": CPM, **RANGE}, lambda data: data == []),
    ("rules", {}, lambda data: data == {"groups": []}),
    ("alerts", {}, lambda data: data == {"alerts": []}),
    ("format_query", {"query": "sum(m)by(a)"}, lambda data: data == "sum by (a) (m)"),
]


@pytest.mark.parametrize(
    ("path", "parameters", "is_right"),
    CALLS,
    ids=[f"{at} {one[0]}" for at, one in enumerate(CALLS)],
)
def test_grafanas_calls_are_answered_by_get_and_by_post(
    store: Asked, path: str, parameters: dict[str, str], is_right: Callable[[Any], bool]
) -> None:
    answers = [
        store.get(f"/api/v1/{path}", parameters),
        store.post(f"/api/v1/{path}", parameters),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["status"] == "success"
        assert is_right(answer.json()["data"]), answer.text
    assert answers[0].content == answers[1].content


def test_address_and_form_carry_parameters_together(store: Asked) -> None:
    answer = store.send(
        "POST", "/api/v1/query", params={"time": NOW}, data={"query": OF_PRODUCTPAGE}
    )
    assert answer.json()["data"]["result"][0]["value"] == [int(NOW), "312"]


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_probes_are_answered(store: Asked, path: str) -> None:
    assert store.get(path).status_code == 200


def test_an_instant_without_a_time_is_now(store: Asked) -> None:
    time_s, _ = store.data("query", query="1")["result"]
    assert time_s > 1_700_000_000


def test_several_values_and_all_of_a_variable(store: Asked) -> None:
    both = f'{CPM}{{service=~"(productpage\\\\.bookinfo|reviews\\\\.bookinfo)"}}'
    found = values(store.data("query", query=both, time=NOW))
    assert set(found) == {"productpage.bookinfo", "reviews.bookinfo"}
    every = store.data("query", query=f'{CPM}{{namespace=~".*"}}', time=NOW)["result"]
    assert len(every) == 15


def test_sums_by_namespace_are_those_of_sql(store: Asked) -> None:
    found = store.data("query", query=f"sum by (namespace) ({CPM})", time=NOW)
    assert {name: float(text) for name, (_, text) in values(found, "namespace").items()} == {
        "bookinfo": 1000,
        "boutique": 439,
        "istio-system": 304,
    }


def test_hours_and_days_are_merged_from_states(store: Asked) -> None:
    hours = {"start": "1795870800", "end": "1795874400", "step": "3600"}
    found = store.data("query_range", query=OF_PRODUCTPAGE, **hours)["result"][0]["values"]
    # 861 calls in the hour of 13:00; 947 in the three minutes that there are of the next.
    assert [float(text) for _, text in found] == [861 / 60, pytest.approx(947 / 3)]
    total = store.data("query_range", query=f"increase({OF_PRODUCTPAGE}[1h])", **hours)
    assert [text for _, text in total["result"][0]["values"]] == ["861", "947"]
    percentile = f'{PERCENTILE}{{service="productpage.bookinfo",p="95"}}'
    found = store.data("query_range", query=percentile, **hours)["result"][0]["values"]
    assert [text for _, text in found] == ["10", "30"]


MINUTES = {"start": "1795874100", "end": "1795874700", "step": "60"}
HOURS = {"start": "1795870800", "end": "1795874400", "step": "3600"}
DAYS = {"start": "1795824000", "end": "1795910400", "step": "86400"}


def _states_of_namespaces(store: Path, step_s: int) -> dict[tuple[str, int], tuple[int, Any]]:
    """Return calls and counts of latencies in 10 ms, by namespace and second, added up here."""
    found: dict[tuple[str, int], tuple[int, Any]] = {}
    with duckdb.connect(store, read_only=True) as connection:
        named = "SELECT column_name FROM internal.state_columns WHERE scope = 'service' AND state"
        sum_ms, counts = (
            connection.execute(f"{named} = ?", [state]).fetchall()[0][0]
            for state in (
                "http.sum(latency_ms) where detect_point == 'SERVER'",
                "http.count() by latency_ms // 10 where detect_point == 'SERVER'",
            )
        )
        rows = connection.execute(
            f"SELECT service, epoch(time_bucket)::BIGINT, {sum_ms}, {counts} "
            "FROM internal.service_states JOIN internal.service_entities USING (entity) "
            f"WHERE {counts} IS NOT NULL"
        ).fetchall()
    for service, at_s, own_ms, own in rows:
        key = service.rpartition("::")[2].rpartition(".")[2], at_s - at_s % step_s
        total_ms, merged = found.get(key, (0, Counter()))
        counted = Counter({entry["key"]: entry["value"] for entry in own})
        found[key] = total_ms + own_ms, merged + counted
    return found


def _at_rank(counts: Mapping[int, int], percentile: int) -> int:
    rank = (sum(counts.values()) * percentile + 50) // 100
    below = 0
    for bucket, count in sorted(counts.items()):
        below += count
        if below >= rank:
            return bucket * 10
    raise AssertionError(counts)


@pytest.mark.parametrize("times", [MINUTES, HOURS, DAYS])
def test_means_and_percentiles_of_a_namespace_are_of_all_its_calls(
    store: Asked, golden_store: Path, times: dict[str, str]
) -> None:
    wanted = _states_of_namespaces(golden_store, int(times["step"]))
    query = f"avg by (namespace, p) ({PERCENTILE})"
    found = {
        (one["metric"]["namespace"], one["metric"]["p"], at_s): text
        for one in store.data("query_range", query=query, **times)["result"]
        for at_s, text in one["values"]
    }
    assert found == {
        (namespace, str(percentile), at_s): str(_at_rank(counts, percentile))
        for (namespace, at_s), (_, counts) in wanted.items()
        for percentile in (50, 75, 90, 95, 99)
    }
    query = f"avg by (namespace) ({MEAN})"
    means = {
        (one["metric"]["namespace"], at_s): text
        for one in store.data("query_range", query=query, **times)["result"]
        for at_s, text in one["values"]
    }
    assert means == {
        key: str(total_ms // sum(counts.values())) for key, (total_ms, counts) in wanted.items()
    }
    assert len(means) >= 3


@pytest.mark.parametrize("times", [MINUTES, HOURS, DAYS])
@pytest.mark.parametrize(
    "metric", ["percentile", "http_call_time", "apdex", "http_call_successful_rate"]
)
def test_what_pods_of_a_service_amount_to_is_what_it_has(
    store: Asked, metric: str, times: dict[str, str]
) -> None:
    pods = f"avg by (service, p) (kubernetes_service_instance_{metric})"
    services = f"avg by (service, p) (kubernetes_service_{metric})"
    merged, own = (
        store.data("query_range", query=one, **times)["result"] for one in (pods, services)
    )
    assert merged == own
    assert len(own) > 10


@pytest.mark.parametrize(
    ("text", "is_merged"),
    [
        (f'avg({PERCENTILE}{{p="99"}})', True),
        (f"avg(({MEAN}))", True),
        (f"avg without (service, service_short) ({MEAN}{{namespace!=''}} offset 1m)", True),
        (f"avg({PERCENTILE})", False),
        (f"avg by (namespace) ({MEAN} + 0)", False),
        (f"avg by (namespace) ({CPM})", False),
        ('avg by (__name__) ({__name__=~"kubernetes_service_(http_call_time|apdex)"})', False),
    ],
)
def test_states_are_merged_where_one_metric_is_averaged(
    store: Asked, text: str, *, is_merged: bool
) -> None:
    answer = store.get("/api/v1/query", {"query": text, "time": NOW}).json()
    assert answer["data"]["result"]
    assert ("states are merged" in " ".join(answer.get("infos", ()))) is is_merged


def test_relations_have_both_sides(store: Asked) -> None:
    query = (
        'kubernetes_service_relation_client_http_call_cpm{service="productpage.bookinfo",'
        'dest_service=~"re.*",dest_namespace="bookinfo"}'
    )
    (one,) = store.data("query", query=query, time=NOW)["result"]
    assert one["metric"]["dest_service"] == "reviews.bookinfo"
    assert one["value"][1] == "252"


@pytest.mark.parametrize(
    ("path", "parameters", "wanted"),
    [
        ("query", {}, (400, "bad_data", "'query'")),
        ("query", {"query": "m{"}, (400, "bad_data", "invalid PromQL")),
        ("query", {"query": "m", "time": "x"}, (400, "bad_data", "'time'")),
        ("query", {"query": "m", "time": "inf"}, (400, "bad_data", "'time'")),
        ("query", {"query": "m", "time": "9" * 400}, (400, "bad_data", "out of range")),
        ("query", {"query": "m", "timeout": "x"}, (400, "bad_data", "'timeout'")),
        ("query", {"query": "m", "timeout": "-1"}, (400, "bad_data", "'timeout'")),
        ("query", {"query": f"rate({MEAN}[5m])"}, (422, "execution", "rate is for counts")),
        ("query", {"query": f'{CPM}{{service=~"\\\\pX"}}'}, (400, "bad_data", "")),
        ("query", {"query": f'{CPM}{{top_n="x"}}'}, (400, "bad_data", "top_n")),
        ("query", {"query": f'{CPM}{{top_n="5",order="UP"}}'}, (400, "bad_data", "order")),
        ("query_range", {"query": "m", "end": END, "step": "60"}, (400, "bad_data", "'start'")),
        ("query_range", {"query": "m", **RANGE}, (400, "bad_data", "'step'")),
        ("query_range", {"query": "m", **RANGE, "step": "0"}, (400, "bad_data", "step")),
        (
            "query_range",
            {"query": "m", **RANGE, "step": "0.01"},
            (400, "bad_data", "11,000 points"),
        ),
        ("query_range", {"query": f"{CPM}[5m]", **RANGE, "step": "60"}, (400, "bad_data", "range")),
        ("query", {"query": f"{CPM}[9y]", "time": NOW}, (422, "execution", "buckets")),
        ("series", RANGE, (400, "bad_data", "match[]")),
        ("series", {"match[]": "sum(m)"}, (400, "bad_data", "no selector")),
        ("labels", {"start": END, "end": START}, (400, "bad_data", "before")),
        ("labels", {"limit": "-1"}, (400, "bad_data", "limit")),
        ("label/service/values", {"match[]": '{service=~"("}'}, (400, "bad_data", "regex")),
        ("status/config", {}, (404, "not_found", "docs/promql.md")),
    ],
)
def test_errors_are_in_prometheus_form(
    store: Asked, path: str, parameters: dict[str, str], wanted: tuple[int, str, str]
) -> None:
    status, kind, told = wanted
    for send in (store.get, store.post):
        answer = send(f"/api/v1/{path}", parameters)
        content = answer.json()
        assert (answer.status_code, content["errorType"]) == (status, kind)
        assert content["status"] == "error"
        assert told in content["error"]
        assert "\n" not in content["error"]


def test_what_has_no_meaning_is_told_beside_the_answer(store: Asked) -> None:
    answer = store.get("/api/v1/query", {"query": f"sum({MEAN})", "time": NOW}).json()
    assert "means" in answer["infos"][0]
    answer = store.get("/api/v1/query", {"query": "kubernetes_service_http_cal_cpm"}).json()
    assert CPM in answer["warnings"][0]
    assert answer["data"]["result"] == []


def test_a_late_answer_is_a_timeout(store: Asked) -> None:
    heavy = " + ".join([f'count({{__name__=~".+"}} offset {at}m)' for at in range(1, 61)])
    answer = store.get("/api/v1/query", {"query": heavy, "time": NOW, "timeout": "0.05"})
    assert answer.status_code == 503, answer.text
    assert answer.json()["errorType"] == "timeout"


def test_a_token_is_asked_for() -> None:
    with duckdb.connect() as nothing, asked(nothing, replace(OPTIONS, token=TOKEN)) as store:
        assert store.get("/api/v1/query", {"query": "1"}).status_code == 401
        shown = {"Authorization": f"Bearer {TOKEN}"}
        answer = store.send("GET", "/api/v1/status/buildinfo", headers=shown)
        assert answer.status_code == 200


def test_recorded_answers_are_equal_or_listed(
    answered: Callable[[Mapping[str, Any]], Asked],
) -> None:
    known = differences()
    every = recorded()
    # A sixth of them; `make golden` asks all.
    found = [compared(answered(one), one, known) for one in every[::6]]
    assert len(found) == 56
    wrong = [str(one) for one in found if not one.is_right]
    assert not wrong


def test_each_difference_has_a_reason_and_requests() -> None:
    ids = [one["id"] for one in recorded()]
    for entry in differences():
        assert entry.kind
        assert len(entry.reason) > 20
        for pattern in entry.ids:
            only = replace(entry, ids=(pattern,))
            assert any(only.has(one) for one in ids), pattern
    assert all(sum(entry.has(one) for entry in differences()) <= 1 for one in ids)


def test_malformed_requests_have_errors_and_never_a_500(store: Asked) -> None:
    statuses = promql_fuzz.ask_all(store, 16, 2_000)
    assert 200 < statuses[200] < 1_800


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"query=%FF%FE&time=1",
        b"query=" + b"1%2B" * 200_000 + b"1",
        b"&".join(b"match[]=m" for _ in range(2_000)),
        b'{"query": "1"}',
        bytes(range(256)),
    ],
    ids=["empty", "no UTF-8", "long", "many", "JSON", "bytes"],
)
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/json", "x"])
def test_bodies_of_any_kind_have_an_answer(store: Asked, content: bytes, kind: str) -> None:
    headers = {"content-type": kind}
    answer = store.send("POST", "/api/v1/query", content=content, headers=headers)
    assert answer.status_code in {400, 413}, answer.text
    assert answer.json()["errorType"] == "bad_data"
    assert re.search(r"[a-z]", answer.json()["error"])


def test_nothing_is_written(store: Asked, tmp_path: Path) -> None:
    for text in ("'; DROP TABLE metrics; --", f"{tmp_path}/x' TO"):
        query = f'{CPM}{{service="{text}"}}'
        assert store.data("query", query=query, time=NOW)["result"] == []
    assert store.data("query", query=OF_PRODUCTPAGE, time=NOW)["result"]


DASHBOARD = Path(__file__).parent.parent / "docs" / "grafana" / "kubernetes-services.json"
_SPECIAL = re.compile(r"([\\^$*+?.()|{}\[\]])")


def interpolated(text: str, variables: Mapping[str, list[str]]) -> str:
    """Fill a query in as Grafana does: names escaped for a regex in a text, several as (a|b)."""
    for name, chosen in variables.items():
        escaped = [_SPECIAL.sub(r"\\\\\1", one) for one in chosen]
        joined = f"({'|'.join(escaped)})" if len(escaped) > 1 else "".join(escaped)
        text = text.replace(f"${name}", ".*" if chosen == ["$__all"] else joined)
    return text.replace("$__range", "600s").replace("$__rate_interval", "240s")


def variable_values(store: Asked, variable: Mapping[str, Any], **chosen: list[str]) -> list[str]:
    """Ask for the values of a variable as a data source of Prometheus 2.24 or newer does."""
    found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
    assert found is not None
    match = interpolated(found[1], chosen)
    return list(store.data(f"label/{found[2]}/values", match=match, start=START, end=END))


@pytest.mark.parametrize(
    "namespaces", [["bookinfo"], ["bookinfo", "istio-system"], ["$__all"]], ids=len
)
def test_the_dashboard_shows_something_everywhere(store: Asked, namespaces: list[str]) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    for address in ("status/buildinfo", "rules", "query_exemplars", "metadata", "labels"):
        store.data(address)
    _, namespace, service = dashboard["templating"]["list"]
    assert {"bookinfo", "istio-system"} <= set(variable_values(store, namespace))
    services = variable_values(store, service, namespace=namespaces)
    assert "productpage.bookinfo" in services
    if namespaces == ["bookinfo"]:
        assert all(one.endswith(".bookinfo") for one in services)
    chosen = {"namespace": namespaces, "service": services}
    for panel in dashboard["panels"]:
        shown = [panel_answer(store, one, chosen) for one in panel["targets"]]
        assert any(one["data"]["result"] for one in shown) or panel["title"] in MAY_BE_EMPTY
        for answer in shown:
            assert "warnings" not in answer
            assert "infos" not in answer, answer["infos"]


# Nothing failed, and nothing was sent again, in the captures.
MAY_BE_EMPTY = {"Status 4xx and 5xx", "Top edges by retransmissions"}


def panel_answer(
    store: Asked, target: Mapping[str, Any], chosen: Mapping[str, list[str]]
) -> Mapping[str, Any]:
    query = interpolated(target["expr"], chosen)
    if target["instant"]:
        answer = store.post("/api/v1/query", {"query": query, "time": NOW})
    else:
        form = {"query": query, **RANGE, "step": "60"}
        answer = store.post("/api/v1/query_range", form)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    for one in content["data"]["result"]:
        labels = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
        assert all(one["metric"].get(name) for name in labels), one["metric"]
    return content
