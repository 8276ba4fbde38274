"""MQE: what expressions give, by the examples and the rules of mqe.md."""

from __future__ import annotations

import datetime as dt
import decimal
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mqe_store import MadeStore
from reference.mqe import Data

from framewalk.queries.metrics import (
    Buckets,
    Catalogue,
    EntityName,
    Leaf,
    Metric,
    Step,
    read_leaves,
)
from framewalk.queries.mqe import (
    Entity,
    ExpressionResult,
    Request,
    as_text,
    evaluate_all,
    explain,
)
from framewalk.queries.mqe.functions import rounded
from framewalk.queries.mqe.results import single

START = dt.datetime(2026, 11, 2, 9, 1, tzinfo=dt.UTC)
START_MS = int(START.timestamp() * 1000)

# At 09:00 and from 09:01 to 09:05; `.` is empty.
TABLE = {
    "cpm": "50 | 60 120 . 90 30",
    "time": "5 | 10 20 . 40 .",
    "rate4": ". | 10000 9500 . 9000 10000",
    "none": ". | . . . . .",
    # Of these two no example tells.
    "even": ". | 7 3 7 3 .",
    "apart": ". | 1 . 1 . 1",
}
LABELLED = {
    "pct": {"50": ". | 10 20 . 20 10", "99": ". | 100 90 . 200 50"},
    "statuses": {"200": ". | 9 9 9 9 9", "50x": ". | 1 . . . .", "-1": ". | . 2 . . 2"},
    "delays": {"b": ". | 4 . . . 4", "a": ". | . 8 . . ."},
}
OTHERS = {"b": {"cpm": ". | 10 . . . .", "time": ". | . . 70 . ."}, "c": {}}


def numbers(text: str) -> list[float | None]:
    return [None if one == "." else float(one) for one in text.replace("|", "").split()]


@pytest.fixture(scope="module")
def store() -> MadeStore:
    plain = {
        name: {"a": numbers(text)}
        | {other: numbers(own[name]) for other, own in OTHERS.items() if name in own}
        for name, text in TABLE.items()
    }
    names = {"pct": "p", "statuses": "code", "delays": "zone"}
    labelled = {
        name: {"a": {((names[name], label),): numbers(text) for label, text in own.items()}}
        for name, own in LABELLED.items()
    }
    return MadeStore(Data(plain, labelled, 1, 5, START_MS), others=["heat"])


def shown(result: ExpressionResult) -> str:
    """Return the values of a result in one line, each series with its labels."""
    assert result.error is None, result.error
    rows = []
    for series in result.series:
        labels = ",".join(f"{name}={value}" for name, value in series.labels)
        values = " ".join(text or "." for text in series.texts)
        rows.append(f"{{{labels}}} {values}" if labels else values)
    return " | ".join(rows)


SINGLE, SERIES, LIST = "SINGLE_VALUE", "TIME_SERIES_VALUES", "SORTED_LIST"

# The examples of mqe.md, section 7.
EXAMPLES = [
    ("cpm", SERIES, "60 120 . 90 30"),
    ("cpm/60", SERIES, "1 2 . 1.5 0.5"),
    ("avg(cpm)", SINGLE, "75"),
    ("avg(cpm)/60", SINGLE, "1.25"),
    ("sum(cpm)", SINGLE, "300"),
    ("count(cpm)", SINGLE, "4"),
    ("latest(cpm)", SINGLE, "30"),
    ("max(cpm)", SINGLE, "120"),
    ("avg(none)", SINGLE, "."),
    ("sum(none)", SINGLE, "0"),
    ("count(none)", SINGLE, "0"),
    ("avg(rate4/100)", SINGLE, "96.25"),
    ("time/cpm", SERIES, "0.167 0.167 . 0.444 ."),
    ("cpm*time", SERIES, "600 2400 . 3600 ."),
    ("cpm > 50", SERIES, "1 1 . 1 0"),
    ("cpm > 50 && time < 30", SERIES, "1 1 . 0 ."),
    ("(avg(rate4) < 9700) * (avg(cpm) > 1) == 1", SINGLE, "1"),
    ("pct{p='50'}", SERIES, "{p=50} 10 20 . 20 10"),
    ("pct{p='50,99'}/10", SERIES, "{p=50} 1 2 . 2 1 | {p=99} 10 9 . 20 5"),
    ("pct{p='75'}", SERIES, ""),
    ("avg(pct)", SINGLE, "{p=50} 15 | {p=99} 110"),
    ("pct - avg(pct)", SERIES, "{p=50} -5 5 . 5 -5 | {p=99} -10 -20 . 90 -60"),
    (
        "relabels(pct, p='50,99', percentile='P50,P99')",
        SERIES,
        "{percentile=P50} 10 20 . 20 10 | {percentile=P99} 100 90 . 200 50",
    ),
    ("aggregate_labels(pct, max)", SERIES, "100 90 . 200 50"),
    ("aggregate_labels(pct, sum(p))", SERIES, "{p=50} 10 20 . 20 10 | {p=99} 100 90 . 200 50"),
    ("sort_values(pct, 1, des, avg)", SERIES, "{p=99} 100 90 . 200 50"),
    ("sort_label_values(pct, des, p)", SERIES, "{p=99} 100 90 . 200 50 | {p=50} 10 20 . 20 10"),
    ("time - pct", SERIES, "{p=50} 0 0 . 20 . | {p=99} -90 -70 . -160 ."),
    ("increase(cpm, 1)", SERIES, "10 60 . . -60"),
    ("rate(cpm, 1)", SERIES, "0.167 1 . . -1"),
    ("view_as_seq(unknown_metric, none, cpm)", SERIES, "60 120 . 90 30"),
    ("is_present(none)", SINGLE, "0"),
    ("is_present(none, cpm)", SINGLE, "1"),
    ("round(time/cpm, 2)", SERIES, "0.17 0.17 . 0.44 ."),
    ("cpm{x='1'}", SERIES, "60 120 . 90 30"),
    ("5 + 3 * 2", SINGLE, "11"),
    ("(5+3)*2", SINGLE, "16"),
    ("7 % 4", SINGLE, "3"),
    ("(0-7) % 4", SINGLE, "-3"),
]
LISTS = [
    ("top_n(cpm, 10, des, attr0='K8S_SERVICE')", LIST, "75@a 10@b"),
    ("top_n(cpm, 1, asc)", LIST, "10@b"),
    ("top_n(cpm, 10, des)/60", LIST, "1.25@a 0.167@b"),
    ("avg(top_n(cpm, 10, des))", SINGLE, "42.5"),
    ("top_n_of(top_n(cpm,2,des), top_n(time,2,des), 2, des)", LIST, "75@a 70@b"),
]


@pytest.mark.parametrize(("expression", "kind", "expected"), EXAMPLES)
def test_worked_examples(store: MadeStore, expression: str, kind: str, expected: str) -> None:
    found = store.ask(expression)
    assert (found.type, shown(found)) == (kind, expected)


@pytest.mark.parametrize(("expression", "kind", "expected"), LISTS)
def test_worked_examples_of_lists(
    store: MadeStore, expression: str, kind: str, expected: str
) -> None:
    found = store.ask(expression, None)
    (series,) = found.series
    pairs = [
        f"{text}@{one}" if one else text
        for text, one in zip(series.texts, series.ids or [None] * len(series.values), strict=True)
    ]
    assert (found.type, " ".join(map(str, pairs))) == (kind, expected)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("cpm && time", "left of &&"),
        ("cpm > 1 && time", "right of &&"),
        ("cpm /", "line 1:5 the expression ends here, and a metric, a number, a function or ( is"),
        ("top_n(cpm, 5, des) + cpm", "Unsupported binary operation: a sorted list + a time series"),
        ("top_n(cpm, 5, des) + top_n(cpm, 5, des)", "Unsupported binary operation"),
        ("cpm time", "line 1:4 'time' does not belong"),
        ("cpm)", "line 1:3 "),
        ("(cpm time", "line 1:5 'time' cannot stand here"),
        ("\ncpm ? 1", "line 2:4 '?' has no meaning"),
        ("cpm{p='50", "line 1:6 a text begins here"),
        ("cpm{p=50}", "line 1:6 '50' cannot stand here; a text in quotes can"),
        ("pct{value='50'}", "line 1:4 'value' cannot stand here"),
        ("avg(no_such) + other", "Metric: [no_such] does not exist."),
        ("cpm + no_such", "Metric: [no_such] does not exist."),
        ("cpn", "did you mean cpm?"),
        ("heat", "heat is a histogram"),
        ("is_present(heat) + heat", "heat is a histogram"),
        ("latest(5)", "latest takes a time series"),
        ("latest(top_n(cpm,1,des))", "latest takes a time series"),
        ("top_n(cpm, 0, des)", "must be > 0"),
        ("top_n(cpm, 1001, des)", "at most 1,000"),
        ("top_n_of(top_n(cpm,1,des), top_n(no_such,1,des), 1, des)", "[no_such]"),
        ("top_n(pct, 1, des)", "pct has the label p"),
        ("increase(cpm, 0)", "greater than 0"),
        ("rate(cpm, 99999999999999999999999)", "at most 10,000 steps"),
        ("baseline(no_such, value)", "[no_such]"),
        ("view_as_seq(no_such, none{p='1'} +)", "line 1:34 "),
        ("1" + "+1" * 200, "at most 100 levels"),
        ("(" * 9_000, "at most 8,192 characters"),
    ],
)
def test_errors_are_told_and_give_nothing(store: MadeStore, expression: str, words: str) -> None:
    found = store.ask(expression)
    assert words in (found.error or "")
    assert (found.type, found.series) == ("UNKNOWN", ())


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("relabels(pct, p='50,99', q='x')", "p has 2 values and q has 1"),
        ("relabels(cpm, p='50', q='x')", "relabels takes series with labels"),
        ("aggregate_labels(cpm, sum)", "aggregate_labels takes series with labels"),
        ("aggregate_labels(aggregate_labels(pct, max), max)", "takes series with labels"),
        ("avg(aggregate_labels(cpm, sum))", "takes series with labels"),
    ],
)
def test_errors_about_labels_keep_the_values(store: MadeStore, expression: str, words: str) -> None:
    found = store.ask(expression)
    assert words in (found.error or "")
    assert found.type == SERIES
    assert found.series


# What recorded answers of an OAP do not tell apart (mqe.md, section 6).
@pytest.mark.parametrize(
    ("expression", "kind", "expected"),
    [
        # An empty operand is empty, and so is what is infinite.
        ("cpm / avg(none)", SERIES, ". . . . ."),
        ("cpm - sum(none)", SERIES, "60 120 . 90 30"),
        ("5/0", SINGLE, "."),
        ("0/0", SINGLE, "."),
        ("(0-1)/0", SINGLE, "."),
        ("7 % 0", SINGLE, "."),
        ("7.5 % (0-2)", SINGLE, "1.5"),
        ("cpm/(cpm-60)", SERIES, ". 2 . 3 -1"),
        ("9" * 400, SINGLE, "."),
        # `&&` and `||` are equally strong, and stand left.
        ("1 > 0 || 1 > 0 && 1 < 0", SINGLE, "0"),
        ("1 > 0 || (1 > 0 && 1 < 0)", SINGLE, "1"),
        ("(1 > 2) * (1 < 2) == 1", SINGLE, "0"),
        ("3 > 2 == 1", SINGLE, "1"),
        ("3 > bool 2", SINGLE, "1"),
        ("1 + 1 > 1 * 1", SINGLE, "1"),
        ("8 - 4 - 2", SINGLE, "2"),
        ("8 / 4 / 2", SINGLE, "1"),
        ("none > 1", SERIES, ". . . . ."),
        ("none == none", SERIES, ". . . . ."),
        ("1 > 0 && none > 0", SERIES, ". . . . ."),
        # A single value with labels, beside all others.
        ("avg(pct) + 1", SINGLE, "{p=50} 16 | {p=99} 111"),
        ("1 - avg(pct)", SINGLE, "{p=50} -14 | {p=99} -109"),
        ("avg(pct) + max(pct)", SINGLE, "{p=50} 35 | {p=99} 310"),
        ("avg(pct{p='99'}) + max(pct)", SINGLE, "{p=99} 310"),
        ("avg(pct) + max(pct{p='99'})", SINGLE, "{p=50} . | {p=99} 310"),
        ("cpm - avg(pct)", SERIES, "{p=50} 45 105 . 75 15 | {p=99} -50 10 . -20 -80"),
        ("avg(pct{p='99'}) - pct", SERIES, "{p=50} . . . . . | {p=99} 10 20 . -90 60"),
        ("pct - avg(pct{p='99'})", SERIES, "{p=50} . . . . . | {p=99} -10 -20 . 90 -60"),
        ("pct{p='75'} + 1", SERIES, ""),
        ("1 + avg(pct{p='75'})", SINGLE, ""),
        ("pct + pct{p='75'}", SERIES, "{p=50} . . . . . | {p=99} . . . . ."),
        # An empty plain value beside labelled ones.
        ("none + pct", SERIES, "{p=50} . . . . . | {p=99} . . . . ."),
        ("pct + time", SERIES, "{p=50} 20 40 . 60 . | {p=99} 110 110 . 240 ."),
        # Labels are sets.
        ("pct{p='50',p='99'}", SERIES, "{p=50} 10 20 . 20 10 | {p=99} 100 90 . 200 50"),
        ("pct{p=' 99 ,,'}", SERIES, "{p=99} 100 90 . 200 50"),
        ("pct{p='50',q='1'}", SERIES, ""),
        ("pct{p=''}", SERIES, "{p=50} 10 20 . 20 10 | {p=99} 100 90 . 200 50"),
        # Numbers.
        ("round(2.675, 2)", SINGLE, "2.68"),
        ("round(0-2.5, 0)", SINGLE, "-3"),
        ("round(1.005, 99999999999999999999)", SINGLE, "1.005"),
        ("ceil(0-0.5)", SINGLE, "0"),
        ("floor(0-0.5)", SINGLE, "-1"),
        ("abs(0-cpm)", SERIES, "60 120 . 90 30"),
        ("1/3", SINGLE, "0.333"),
        ("0.0625", SINGLE, "0.062"),
        ("123456789012345 * 10", SINGLE, "1234567890123450"),
        # Trends.
        ("rate(cpm, 2)", SERIES, ". 0.583 . -0.25 ."),
        ("increase(pct{p='50'}, 1)", SERIES, "{p=50} . 10 . . -10"),
        ("increase(cpm, 10000)", SERIES, ". . . . ."),
        ("avg(increase(none, 1))", SINGLE, "."),
        # Labels that are not percentiles, in the order of texts.
        ("statuses", SERIES, "{code=-1} . 2 . . 2 | {code=200} 9 9 9 9 9 | {code=50x} 1 . . . ."),
        ("delays{zone='a'}", SERIES, "{zone=a} . 8 . . ."),
        ("sum(statuses)", SINGLE, "{code=-1} 4 | {code=200} 45 | {code=50x} 1"),
        ("relabels(delays, zone='a', site='A')", SERIES, "{site=A} . 8 . . . | {zone=b} 4 . . . 4"),
        ("relabels(pct{p='75'}, p='75', q='x')", SERIES, ""),
        ("aggregate_labels(statuses, avg)", SERIES, "5 5.5 9 9 5.5"),
        ("aggregate_labels(statuses, min)", SERIES, "1 2 9 9 2"),
        ("aggregate_labels(pct{p='75'}, sum)", SERIES, ""),
        ("aggregate_labels(avg(pct), sum)", SINGLE, "125"),
        (
            "aggregate_labels(pct, sum(q, p, p))",
            SERIES,
            "{p=50} 10 20 . 20 10 | {p=99} 100 90 . 200 50",
        ),
        # By the function that is named: the sums of these are 4 and 1, their counts 2 and 1.
        ("sort_values(delays, 1, des, max)", SERIES, "{zone=a} . 8 . . ."),
        ("sort_values(delays, 1, des, count)", SERIES, "{zone=b} 4 . . . 4"),
        (
            "sort_values(statuses, 2, asc, latest)",
            SERIES,
            "{code=50x} 1 . . . . | {code=-1} . 2 . . 2",
        ),
        ("sort_values(delays, 0, des, max)", SERIES, ""),
        (
            "sort_values(delays - delays{zone='b'}, 9, asc, count)",
            SERIES,
            "{zone=b} 0 . . . 0 | {zone=a} . . . . .",
        ),
        ("sort_values(cpm, 0, des, max)", SERIES, "60 120 . 90 30"),
        ("sort_values(avg(pct), 1, asc, max)", SINGLE, "{p=50} 15"),
        (
            "sort_values(delays - delays{zone='a'}, 9, asc, sum)",
            SERIES,
            "{zone=a} . 0 . . . | {zone=b} . . . . .",
        ),
        # As numbers where all are numbers, else as text.
        (
            "sort_label_values(statuses{code='-1,200'}, des, code)",
            SERIES,
            "{code=200} 9 9 9 9 9 | {code=-1} . 2 . . 2",
        ),
        (
            "sort_label_values(statuses{code='50x,200'}, des, code)",
            SERIES,
            "{code=50x} 1 . . . . | {code=200} 9 9 9 9 9",
        ),
        (
            "sort_label_values(relabels(pct, p='50,99', p='100,50'), asc, p)",
            SERIES,
            "{p=50} 100 90 . 200 50 | {p=100} 10 20 . 20 10",
        ),
        (
            "sort_label_values(relabels(pct, p='50', q='9'), asc, q, p)",
            SERIES,
            "{p=99} 100 90 . 200 50 | {q=9} 10 20 . 20 10",
        ),
        # The first that has a value; what is wrong has none.
        (
            "view_as_seq(no_such, heat, pct{p='75'}, pct)",
            SERIES,
            "{p=50} 10 20 . 20 10 | {p=99} 100 90 . 200 50",
        ),
        ("view_as_seq(none, no_such)", SERIES, ". . . . ."),
        ("is_present(no_such, heat)", SINGLE, "0"),
        ("is_present(count(none))", SINGLE, "1"),
        ("is_present(aggregate_labels(cpm, sum))", SINGLE, "0"),
        ("baseline(cpm, upper)", SERIES, ". . . . ."),
        ("baseline(pct, value)", SERIES, ""),
        # Metrics that nobody sends us are known.
        ("k8s_service_pod_total", SERIES, ". . . . ."),
        ("latest(k8s_service_pod_status)", SINGLE, ""),
        ("process_relation_client_write_cpm", SERIES, ". . . . ."),
    ],
)
def test_what_recorded_answers_do_not_tell(
    store: MadeStore, expression: str, kind: str, expected: str
) -> None:
    found = store.ask(expression)
    assert (found.type, shown(found)) == (kind, expected)


def test_the_first_error_of_a_sequence_without_values_is_its_result(store: MadeStore) -> None:
    found = store.ask("view_as_seq(no_such, none)")
    assert (found.type, found.error) == ("UNKNOWN", "Metric: [no_such] does not exist.")


def test_identifiers(store: MadeStore) -> None:
    times = [str(START_MS + at * 60_000) for at in range(5)]
    expected = {
        "cpm": times,
        "cpm / 2": times,
        "2 - pct{p='50'}": times,
        "rate(cpm, 1)": times,
        "aggregate_labels(pct, sum)": times,
        "max(cpm)": [times[1]],
        "latest(cpm)": [times[4]],
        # The first of equal ones.
        "max(even)": [times[0]],
        "min(even)": [times[1]],
        "latest(even)": [times[3]],
        "max(max(cpm))": [times[1]],
        "abs(max(cpm))": [times[1]],
        "max(cpm) + 1": [],
        "max(cpm) > 1": [],
        "avg(cpm)": [],
        "sum(cpm)": [],
        "max(none)": [],
        "5": [],
    }
    for expression, ids in expected.items():
        (series,) = store.ask(expression).series
        assert list(series.ids) == ids, expression
    (listed,) = store.ask("max(top_n(cpm, 5, des))", None).series
    assert (listed.ids, listed.owners[0].id) == (("a",), "YQ==.1")


def test_entities_of_lists(store: MadeStore) -> None:
    def listed(expression: str, entity: Entity) -> list[str | None] | str | None:
        (found,) = evaluate_all(
            store.cursor, store.catalogue, [Request(expression, entity, store.buckets)]
        )
        assert found.type == LIST
        return list(found.series[0].ids)

    # A service is asked for: a list of services has none that belong to it.
    assert listed("top_n(cpm,5,des)", Entity("a", normal=True)) == []
    assert listed("top_n(cpm,5,des)", Entity("", normal=False)) == ["a", "b"]
    assert listed("top_n(cpm,5,des,attr0!='K8S_SERVICE')", Entity()) == []
    assert listed("top_n(cpm,5,des,attr0!='GENERAL')", Entity()) == ["a", "b"]
    assert listed("top_n(cpm,5,des,attr1!='x')", Entity()) == []
    assert listed("top_n(none,5,des)", Entity()) == []
    assert listed("top_n(k8s_service_pod_total,5,des)", Entity()) == []
    # Equal ones go by name.
    assert listed("top_n_of(top_n(cpm,5,asc), top_n(cpm,5,des), 3, asc)", Entity()) == [
        "b",
        "b",
        "a",
    ]


def test_lists_of_a_service_need_to_know_that_it_is_real(store: MadeStore) -> None:
    store.cursor.execute(
        "CREATE OR REPLACE TABLE endpoint_minute AS SELECT $1::TIMESTAMP AS time_bucket, "
        "'a' AS service, 'GET:/' || i AS endpoint, i AS calls FROM range(1, 4) AS numbers(i)",
        [store.buckets.first],
    )
    catalogue = Catalogue.made_of([Metric("calls", "endpoint", "cpm")])

    def listed(entity: Entity) -> list[str | None]:
        request = Request("top_n(calls, 2, des)", entity, store.buckets)
        (found,) = evaluate_all(store.cursor, catalogue, [request])
        assert (found.type, found.error) == (LIST, None)
        return list(found.series[0].ids)

    assert listed(Entity("a", normal=True)) == ["GET:/3", "GET:/2"]
    assert listed(Entity("a", normal=False)) == []
    assert listed(Entity("a")) == []
    assert listed(Entity("b", normal=True)) == []
    # Without a service they are of all of them, and named with theirs.
    assert listed(Entity()) == ["a - GET:/3", "a - GET:/2"]


@pytest.mark.parametrize(("step", "seconds"), [(Step.HOUR, 3_600), (Step.DAY, 86_400)])
def test_a_rate_is_per_second_of_its_steps(store: MadeStore, step: Step, seconds: int) -> None:
    first = dt.datetime(2026, 11, 2)  # noqa: DTZ001 - as the store's times are
    store.cursor.execute(
        f"CREATE OR REPLACE TABLE service_{step.resolution} AS "
        "SELECT $1::TIMESTAMP + to_seconds(i * $2) AS time_bucket, 'a' AS service, "
        "(i + 2) * (i + 2) * $2 AS cpm FROM range(-2, 3) AS numbers(i)",
        [first, seconds],
    )
    buckets = Buckets(step, first, 3)
    for expression, expected in (
        ("rate(cpm, 1)", "3 5 7"),
        ("rate(cpm, 2)", "2 4 6"),
        ("increase(cpm, 1)", f"{3 * seconds} {5 * seconds} {7 * seconds}"),
    ):
        request = Request(expression, Entity("a", normal=True), buckets)
        (found,) = evaluate_all(store.cursor, store.catalogue, [request])
        assert shown(found) == expected


def test_an_entity_that_misses_a_name_is_told(store: MadeStore) -> None:
    for entity, missing in [
        (Entity(), "serviceName, normal"),
        (Entity("a"), "normal"),
        (Entity(normal=True), "serviceName"),
    ]:
        request = Request("avg(cpm)", entity, store.buckets)
        (found,) = evaluate_all(store.cursor, store.catalogue, [request])
        assert (found.type, found.error) == ("UNKNOWN", f"cpm needs an entity with {missing}")
    for entity in (Entity("a", normal=False), Entity("", normal=True), Entity("x", normal=True)):
        request = Request("sum(cpm)", entity, store.buckets)
        (found,) = evaluate_all(store.cursor, store.catalogue, [request])
        assert shown(found) == "0"


@pytest.mark.parametrize("name", ["\ud800", "a\x00", "'; DROP TABLE metrics; --", "é" * 10_000])
def test_any_text_names_an_entity(store: MadeStore, name: str) -> None:
    for expression in ("sum(cpm)", "sum(top_n(cpm, 1, des))"):
        assert shown(store.ask(expression, name)) == "0"


def test_relations_are_read_where_both_ends_are_real(store: MadeStore) -> None:
    catalogue = Catalogue.made_of([Metric("calls", "service_relation", "cpm")])

    def statements(source_is_real: bool, dest_is_real: bool) -> int:  # noqa: FBT001 - two flags
        entity = Entity("a", source_is_real, dest_service="b", dest_normal=dest_is_real)
        return len(explain(store.cursor, catalogue, [Request("calls", entity, store.buckets)]))

    read = [statements(one, other) for one in (True, False) for other in (True, False)]
    assert read == [1, 0, 0, 0]


def test_all_that_is_asked_costs_few_statements(store: MadeStore) -> None:
    expressions = ["avg(cpm)", "time/cpm", "pct", "cpm{x='1'}", "is_present(none)", "no_such", "("]
    requests = [
        Request(expression, Entity(service, normal=True), store.buckets)
        for expression in expressions
        for service in ("a", "b", "c")
    ]
    lists = ["top_n(cpm,1,des)", "top_n(time,1,asc)", "top_n_of(top_n(cpm,2,des),1,des)"]
    requests += [Request(expression, Entity(), store.buckets) for expression in lists]
    statements = explain(store.cursor, store.catalogue, requests)
    assert len(statements) == 2
    for statement in statements:
        assert store.cursor.execute(statement.written).fetchall()
    alone = [evaluate_all(store.cursor, store.catalogue, [one])[0] for one in requests]
    together = evaluate_all(store.cursor, store.catalogue, requests)
    for one, other in zip(alone, together, strict=True):
        assert (one.type, one.error) == (other.type, other.error)
        assert [series.texts for series in one.series] == [series.texts for series in other.series]


def test_a_histogram_is_read_as_empty(store: MadeStore) -> None:
    metric = store.catalogue.metrics["heat"]
    leaf = Leaf(metric, EntityName.service("a"), store.buckets)
    (series,) = read_leaves(store.cursor, [leaf])[leaf]
    assert [math.isnan(value) for value in series.values] == [True] * 5


def test_what_is_too_much_at_once_is_refused(store: MadeStore) -> None:
    buckets = Buckets(Step.MINUTE, store.buckets.first, 500_000)
    requests = [
        Request(expression, Entity(service, normal=True), buckets)
        for expression in ("count(cpm)", "count(pct)", "count(time)")
        for service in ("a", "b")
    ]
    found = evaluate_all(store.cursor, store.catalogue, requests)
    assert ["too much" in (one.error or "") for one in found] == [False] * 2 + [True] * 2 + [
        False
    ] * 2
    assert [shown(one) for one in found if one.error is None] == ["4", "1", "3", "1"]


def test_what_is_too_much_to_compute_is_refused(store: MadeStore) -> None:
    buckets = Buckets(Step.MINUTE, store.buckets.first, 501)
    deep = "round(" * 90 + "pct" + ", 2)" * 90
    requests = [Request(deep, Entity("a", normal=True), buckets)] * 45
    found = evaluate_all(store.cursor, store.catalogue, requests)
    refused = [one.error is not None for one in found]
    assert refused == sorted(refused)
    assert 40 <= refused.count(False) < 45
    assert all("too much" in one.error for one in found if one.error)


@given(st.floats(-1e12, 1e12), st.integers(0, 12))
@example(2.675, 2)
@example(0.285, 2)
@example(1e9 + 0.5, 0)
def test_numbers_are_rounded_by_their_texts(value: float, places: int) -> None:
    # Half away from zero of the shortest text, whatever the double is.
    result = rounded(single(value), places)
    step = decimal.Decimal(1).scaleb(-places)
    exact = decimal.Decimal(repr(value)).quantize(step, rounding=decimal.ROUND_HALF_UP)
    assert result.series[0].values.tolist() == [float(exact)]


def test_texts_are_those_of_three_decimals() -> None:
    assert as_text(math.nan) is None
    for value, text in [(0.0, "0"), (-0.0, "0"), (-0.0001, "0"), (2.0625, "2.062"), (1e300, None)]:
        assert as_text(value) == (text or f"{value:.0f}")
    assert as_text(1234.5) == "1234.5"
