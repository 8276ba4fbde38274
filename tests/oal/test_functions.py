"""Every function over chosen logs, through the views, against the slow reference."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from batches import Row, as_batch
from comparison import Values, differences, read_views
from reference import Definition, analyse, load_dump
from reference.definitions import definition_of

from framewalk.engine.kubernetes.addresses import Entities, read_entities
from framewalk.engine.oal.binding import bind
from framewalk.engine.oal.functions import FUNCTIONS
from framewalk.engine.oal.parser import parse
from framewalk.engine.oal.plan import Plan, make_plan
from framewalk.engine.stages.pipeline import partial
from framewalk.engine.states.merging import States, merge
from framewalk.engine.store.store import Store
from framewalk.engine.wire import access_log_pb2 as pb

BASE = 1_714_564_800
NO_CLUSTER = """\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: unused, namespace: unused}}
"""
LARGEST = 2**63 - 1
PARTS_OF_RATE = ("numerator", "denominator")
SHOP = (("frontend.shop",), BASE)


# function -> attribute, arguments; the filter is in FILTERS.
CALLS = {
    "longAvg": ("write.l4.totalPackageSize", ""),
    "doubleAvg": ("write.l4.totalPackageSize", ""),
    "sum": ("write.l4.totalPackageSize", ""),
    "max": ("write.l4.totalPackageSize", ""),
    "min": ("write.l4.totalPackageSize", ""),
    "maxDouble": ("write.l4.totalPackageSize", ""),
    "minDouble": ("write.l4.totalPackageSize", ""),
    "count": ("write.l4.totalPackageSize", ""),
    "cpm": ("write.l4.totalPackageSize", ""),
    "percent": ("*", "write.l4.totalPackageSize > 10"),
    "rate": ("*", "write.l4.totalPackageSize > 10, write.l4.totalPackageSize > 5"),
    "apdex": ("protocol.http.latency", "name, protocol.success"),
    "percentile2": ("write.l4.totalPackageSize", "10"),
    "percentile": ("write.l4.totalPackageSize", "1"),
    "relativePercentile": ("write.l4.duration", ""),
    "histogram": ("write.l4.totalPackageSize", "10, 3"),
    "labelCount": ("*", "write.syscall, 2"),
    "labelAvg": ("*", "write.syscall, write.l4.totalPackageSize, 2"),
}
FILTERS = {"all": "", "none": 'name == "nobody"'}


def rows_of_definitions() -> Iterable[dict[str, str]]:
    for function, (attribute, arguments) in CALLS.items():
        for kind, filters in FILTERS.items():
            # A percentage is of all logs: only writes have what it asks for.
            of_writes = attribute == "*" and function != "labelCount"
            both = [*(['type == "write"'] if of_writes else []), *([filters] if filters else [])]
            yield {
                "metric": f"{function}_{kind}",
                "scope": "K8SService",
                "attribute": attribute,
                "filters": " && ".join(both),
                "function": function,
                "arguments": arguments,
            }


def as_oal(row: dict[str, str]) -> str:
    filters = "".join(f".filter({one})" for one in row["filters"].split(" && ") if one)
    source = f"from({row['scope']}.{row['attribute']})"
    return f"{row['metric']} = {source}{filters}.{row['function']}({row['arguments']});\n"


def in_words() -> list[Definition]:
    """Return what the reference evaluates; it counts what a rate divides by itself."""
    rows = [row for row in rows_of_definitions() if row["function"] != "rate"]
    for name, condition in zip(PARTS_OF_RATE, CALLS["rate"][1].split(", "), strict=True):
        filters = f'type == "write" && {condition}'
        counted = {"metric": name, "filters": filters, "function": "count", "arguments": ""}
        rows.append({"scope": "K8SService", "attribute": "*"} | counted)
    return [definition_of(row) for row in rows]


def wanted(rows: Sequence[Row], resolution: str) -> Values:
    """Return the values of the reference, with the rate made of the counts of its parts."""
    result = analyse(rows, load_dump(NO_CLUSTER), in_words(), resolution=resolution)
    for entity_values in result.values["service"].values():
        numerator, denominator = (entity_values.pop(part, 0) for part in PARTS_OF_RATE)
        if denominator:
            entity_values["rate_all"] = numerator * 10_000 // denominator
    return result.values


def planned(text: str) -> Plan:
    found = bind([parse(text)])
    assert found.diagnostics == ()
    return make_plan(found.metrics)


@pytest.fixture(scope="module")
def every_function() -> Plan:
    return planned("".join(map(as_oal, rows_of_definitions())))


@pytest.fixture(scope="module")
def no_entities(tmp_path_factory: pytest.TempPathFactory) -> Entities:
    path = tmp_path_factory.mktemp("dump") / "kubectl.yaml"
    path.write_text(NO_CLUSTER, encoding="utf-8")
    return read_entities(path)


@pytest.fixture(scope="module")
def empty_store(every_function: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "empty.duckdb"
    Store(path, every_function).close()
    return path


def message() -> pb.EBPFAccessLogMessage:
    """Return one that says all that is needed, so that rows can be taken apart."""
    made = pb.EBPFAccessLogMessage()
    made.node.bootTime.seconds = BASE
    made.connection.local.kubernetes.serviceName = "frontend.shop"
    made.connection.remote.kubernetes.serviceName = "cart.shop"
    return made


def write(size: int, syscall: int = 0, second: int = 0) -> bytes:
    made = message()
    log = made.kernelLogs.add().write
    log.startTime.offset.offset = log.endTime.offset.offset = second * 10**9
    log.syscall = syscall
    log.l4Metrics.totalPackageSize = size
    return made.SerializeToString()


def call(latency_ms: int, status: int = 200, path: str = "/") -> bytes:
    made = message()
    log = made.protocolLog.http
    log.startTime.offset.offset = 0
    log.endTime.offset.offset = latency_ms * 10**6
    log.request.path = path
    log.response.statusCode = status
    return made.SerializeToString()


def named(remote: str) -> bytes:
    made = pb.EBPFAccessLogMessage.FromString(read())
    made.connection.remote.kubernetes.serviceName = remote
    return made.SerializeToString()


def read() -> bytes:
    made = message()
    made.kernelLogs.add().read.startTime.offset.offset = 0
    return made.SerializeToString()


CASES: dict[str, list[bytes]] = {
    "empty": [],
    "no log has the attributes": [read(), read()],
    "one row": [write(7), call(3)],
    "one row of 0": [write(0), call(0)],
    "several": [
        *(write(size, size % 4) for size in (0, 1, 9, 10, 11, 29, 30, 31, 39, 40, 41, 1_000)),
        *(call(latency_ms) for latency_ms in (0, 499, 500, 501, 1_999, 2_000, 2_001, 60_000)),
        *(call(1, status) for status in (0, 404, 499, 500, 503)),
    ],
    "denominator of 0": [write(0), write(5)],
    "extremes": [write(LARGEST), write(LARGEST, 1), write(0), write(1, 2), call(LARGEST // 10**6)],
    "sums of a label beyond the range": [write(LARGEST), write(LARGEST), write(3, 1), write(4, 1)],
    "out of range": [write(-1), write(-(2**63), 1), write(5)],
    "one average is cut to 0": [write(1), *(write(0) for _ in range(9)), write(0, 1), write(5, 2)],
    "most labels of equals": [write(size, syscall) for syscall in (7, 3, 5, 3) for size in (1, 2)],
    "59 logs of an hour": [write(second, second=second) for second in range(59)],
    "several minutes": [write(second, second=second) for second in range(0, 7_200, 30)],
}


def as_rows(messages: Sequence[bytes]) -> list[Row]:
    # A stream may have logs of 64 minutes.
    received_ns = (BASE + 7_200) * 10**9
    return [(1 + seq // 100, seq, received_ns + seq, one) for seq, one in enumerate(messages)]


def states_of(rows: Sequence[Row], entities: Entities, plan: Plan) -> States:
    return partial([as_batch(rows)], entities, plan)


def values(path: Path, plan: Plan, *commits: States) -> Values:
    """Commit states to a store and read its views."""
    with Store(path, plan) as store:
        for states in commits:
            store.commit(None, Path("x"), [], states)
        return read_views(store)


def opened(empty_store: Path, path: Path, plan: Plan) -> Store:
    shutil.copy(empty_store, path)
    return Store(path, plan)


def test_each_function_is_tried() -> None:
    assert CALLS.keys() == FUNCTIONS.keys()


@pytest.mark.parametrize("case", CASES)
def test_each_function_has_the_value_of_the_reference(
    case: str, every_function: Plan, no_entities: Entities, empty_store: Path, tmp_path: Path
) -> None:
    rows = as_rows(CASES[case])
    states = states_of(rows, no_entities, every_function)
    with opened(empty_store, tmp_path / "x.duckdb", every_function) as store:
        store.commit(None, Path("x"), [], states)
        for resolution in ("minute", "hour"):
            assert differences(read_views(store, resolution), wanted(rows, resolution)) == []


@pytest.mark.parametrize("case", [case for case in CASES if len(CASES[case]) > 1])
def test_two_halves_merge_to_the_whole(
    case: str, every_function: Plan, no_entities: Entities, empty_store: Path, tmp_path: Path
) -> None:
    rows = as_rows(CASES[case])
    first, second = (
        states_of(part, no_entities, every_function) for part in (rows[::2], rows[1::2])
    )
    with opened(empty_store, tmp_path / "merged.duckdb", every_function) as store:
        store.commit(None, Path("x"), [], merge(every_function, second, first))
        assert differences(read_views(store), wanted(rows, "minute")) == []
    with opened(empty_store, tmp_path / "parts.duckdb", every_function) as store:
        for states in (second, first):
            store.commit(None, Path("x"), [], states)
        assert differences(read_views(store), wanted(rows, "minute")) == []


@pytest.fixture
def found(
    every_function: Plan, no_entities: Entities, empty_store: Path, tmp_path: Path
) -> Callable[[str], dict[str, Any]]:
    """Return the values of one service and minute in a case."""

    def values_of(case: str) -> dict[str, Any]:
        states = states_of(as_rows(CASES[case]), no_entities, every_function)
        with opened(empty_store, tmp_path / f"{case}.duckdb", every_function) as store:
            store.commit(None, Path("x"), [], states)
            return read_views(store)["service"].get(SHOP, {})

    return values_of


Found = Callable[[str], dict[str, Any]]


@pytest.mark.parametrize("case", ["empty", "no log has the attributes"])
def test_without_logs_there_is_no_value(case: str, found: Found) -> None:
    assert found(case) == {}


def test_where_all_is_filtered_out_there_is_no_value(found: Found) -> None:
    assert found("several").keys() == {f"{function}_all" for function in FUNCTIONS}


def test_values_by_hand(found: Found) -> None:
    got = found("one row")
    assert got == {
        "longAvg_all": 7,
        "doubleAvg_all": 7.0,
        "sum_all": 7,
        "max_all": 7,
        "min_all": 7,
        "maxDouble_all": 7.0,
        "minDouble_all": 7.0,
        "count_all": 1,
        "cpm_all": 1,
        "percent_all": 0,
        "rate_all": 0,
        "apdex_all": 10_000,
        "percentile2_all": dict.fromkeys(("p50", "p75", "p90", "p95", "p99"), 0),
        "percentile_all": dict.fromkeys(("p50", "p75", "p90", "p95", "p99"), 7),
        "relativePercentile_all": dict.fromkeys(("p50", "p75", "p90", "p95", "p99"), 1_010),
        "histogram_all": {0: 1, 10: 0, 20: 0, 30: 0},
        "labelCount_all": {"Write": 1},
        "labelAvg_all": {"Write": 7},
    }


def test_extremes_by_hand(found: Found) -> None:
    got = found("extremes")
    assert got["sum_all"] == LARGEST
    assert got["longAvg_all"] == LARGEST // 4
    assert (got["max_all"], got["min_all"]) == (LARGEST, 0)
    assert got["maxDouble_all"] == 2.0**63
    assert got["percentile_all"]["p99"] == LARGEST
    assert got["histogram_all"] == {0: 2, 10: 0, 20: 0, 30: 2}
    assert got["labelAvg_all"] == {"Write": LARGEST // 2, "Send": 1}


def test_an_average_of_little_is_1_and_of_nothing_0(found: Found) -> None:
    got = found("one average is cut to 0")
    assert got["labelAvg_all"] == {"Write": 1, "Send": 5}


def test_a_rate_has_no_value_at_a_denominator_of_0(found: Found) -> None:
    assert "rate_all" not in found("denominator of 0")


OF_TEXTS = """\
text_sum = from((str->long)K8SService.protocol.http.url).sum();
text_count = from((str->long)K8SService.protocol.http.url).count();
text_average = from((str->long)K8SService.protocol.http.url).longAvg();
text_percentile = from((str->long)K8SService.protocol.http.url).percentile2(5);
text_histogram = from((str->long)K8SService.protocol.http.url).histogram(5, 2);
text_labels = from(K8SService.*).labelAvg(name, (str->long)protocol.http.url);
text_int = from((str->int)K8SService.protocol.http.url).max();
text_at_least = from(K8SService.*).filter((str->long)protocol.http.url >= 0).count();
text_other = from(K8SService.*).filter((str->long)protocol.http.url != 12).count();
text_none = from(K8SService.*).filter((str->long)protocol.http.url == null).count();
"""


@pytest.mark.parametrize(
    ("texts", "want"),
    [
        (
            ["-7", "-4", "x", ""],
            {
                "text_sum": -11,
                "text_count": 2,
                "text_average": -5,
                "text_percentile": {"p50": -5, "p75": 0, "p90": 0, "p95": 0, "p99": 0},
                "text_histogram": {0: 2, 5: 0, 10: 0},
                "text_labels": {"frontend.shop": -5},
                "text_int": -4,
                "text_other": 4,
                "text_none": 2,
            },
        ),
        (
            ["12", "0x1", "9223372036854775808", str(2**31 + 1)],
            {
                "text_sum": 2**31 + 13,
                "text_count": 2,
                "text_average": (2**31 + 13) // 2,
                "text_percentile": {
                    "p50": 10,
                    **dict.fromkeys(("p75", "p90", "p95", "p99"), 2**31 - 3),
                },
                "text_histogram": {0: 0, 5: 0, 10: 2},
                "text_labels": {"frontend.shop": (2**31 + 13) // 2},
                "text_int": 12,
                "text_at_least": 2,
                "text_other": 3,
                "text_none": 2,
            },
        ),
        (["x", "y"], {"text_other": 2, "text_none": 2}),
    ],
    ids=["negative", "large", "no number"],
)
def test_numbers_in_texts(
    texts: list[str], want: dict[str, Any], no_entities: Entities, tmp_path: Path
) -> None:
    plan = planned(OF_TEXTS)
    rows = as_rows([call(1, path=text) for text in texts])
    got = values(tmp_path / "x.duckdb", plan, states_of(rows, no_entities, plan))
    assert got["service"][SHOP] == want


def test_a_name_that_spells_a_number_is_a_value(no_entities: Entities, tmp_path: Path) -> None:
    plan = planned(
        "a = from((str->long)K8SServiceRelation.destServiceName).sum();"
        "b = from((str->long)K8SServiceRelation.destServiceName).percentile2(10);"
        "c = from((str->long)K8SServiceRelation.destServiceName).max();"
    )
    rows = as_rows([named("12"), named("12"), named("cart.shop")])
    got = values(tmp_path / "x.duckdb", plan, states_of(rows, no_entities, plan))
    ten = dict.fromkeys(("p50", "p75", "p90", "p95", "p99"), 10)
    assert got["service_relation"] == {
        (("frontend.shop", "12"), BASE): {"a": 24, "b": ten, "c": 12}
    }


def test_a_bucket_of_negative_numbers_is_cut_toward_zero(
    no_entities: Entities, tmp_path: Path
) -> None:
    plan = planned("a = from(K8SService.protocol.http.statusCode).percentile2(10);")
    rows = as_rows([call(1, -15), call(1, -5)])
    got = values(tmp_path / "x.duckdb", plan, states_of(rows, no_entities, plan))
    assert got["service"][SHOP]["a"] == {"p50": -10, "p75": 0, "p90": 0, "p95": 0, "p99": 0}


def test_an_int_is_the_low_half_of_a_long(no_entities: Entities, tmp_path: Path) -> None:
    plan = planned(
        "a = from((int)K8SService.write.l4.totalPackageSize).sum();"
        "b = from((int)K8SService.write.l4.totalPackageSize).min();"
        "c = from((long)K8SService.write.l4.totalPackageSize).max();"
        "d = from((int)K8SService.write.l4.totalPackageSize).longAvg();"
    )
    rows = as_rows([write(2**31), write(LARGEST), write(2**32 + 5)])
    got = values(tmp_path / "x.duckdb", plan, states_of(rows, no_entities, plan))
    minus = -(2**31)
    assert got["service"][SHOP] == {
        "a": minus - 1 + 5,
        "b": minus,
        "c": LARGEST,
        "d": -((2**31 - 4) // 3),
    }
