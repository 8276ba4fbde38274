"""MQE gives what a slow evaluator gives that was written from its rules (reference/mqe.py)."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mqe_store import MadeStore
from reference.mqe import Data, Reference
from reference.mqe_values import FaultError

from framewalk.queries.mqe import ExpressionResult

_ = None
DATA = Data(
    plain={
        "cpm": {"a": [5, 50, 60, 120, _, 90, 30], "b": [_, _, 10, _, 4, 4, _]},
        "time": {"a": [_, 5, 10, 20, _, 40, _], "c": [7, 7, 7, 7, 7, 7, 7]},
        "none": {"a": [3, _, _, _, _, _, _]},
        "odd": {"a": [-1, 0, -2.5, 0, 0.5, _, 3], "b": [0, 0, 0, 0, 0, 0, 0]},
    },
    labelled={
        "pct": {
            "a": {
                (("p", "50"),): [1, _, 10, 20, _, 20, 10],
                (("p", "75"),): [4, _, _, _, _, _, _],
                (("p", "99"),): [9, 2, 100, 90, _, 200, 50],
            },
            "b": {(("p", "50"),): [_, _, _, _, _, _, _]},
        },
        "statuses": {
            "a": {
                (("code", "200"),): [_, _, 9, 9, 9, _, 9],
                (("code", "50"),): [_, _, 1, _, _, 4, _],
                (("code", "x"),): [_, 2, _, _, _, _, 2],
            }
        },
    },
    before=2,
    count=5,
    start_ms=1_793_610_060_000,
)

METRICS = st.sampled_from(["cpm", "time", "none", "odd", "pct", "statuses", "no_such"])
VALUES = st.sampled_from(["50", "99", "50,99", " 200 ,x", "", "7"])
LABEL_NAMES = st.sampled_from(["p", "code", "q"])
LABELS = st.builds("{}='{}'".format, LABEL_NAMES, VALUES)
FILTERED = st.builds("{}{{{}}}".format, METRICS, st.lists(LABELS, max_size=2).map(",".join))
ORDERS = st.sampled_from(["asc", "des", "DES"])
COUNTS = st.integers(0, 3)
STEPS = st.integers(0, 2)
AGGREGATIONS = st.sampled_from(["avg", "count", "latest", "max", "min", "sum"])
ATTRIBUTES = st.sampled_from(
    ["", "", ",attr0='K8S_SERVICE'", ",attr0!='K8S_SERVICE'", ",attr1='x'"]
)
LISTS = st.builds("top_n({},{},{}{})".format, METRICS, COUNTS, ORDERS, ATTRIBUTES)
LEAVES = st.one_of(
    METRICS,
    METRICS,
    FILTERED,
    st.sampled_from(["0", "1", "2.5", "100"]),
    st.builds("{}({},{})".format, st.sampled_from(["increase", "rate"]), METRICS, STEPS),
    st.builds("baseline({},upper)".format, METRICS),
    LISTS,
    st.builds("top_n_of({},{},{},{})".format, LISTS, LISTS, COUNTS, ORDERS),
)
OPERATORS = st.sampled_from([*"+-*/%", "==", "!=", "<", "<=", ">", ">=", "> bool", "&&", "||"])


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    functions = st.sampled_from(["abs", "ceil", "floor"])
    several = st.lists(inner, min_size=1, max_size=3).map(",".join)
    names = st.lists(LABEL_NAMES, min_size=1, max_size=2).map(",".join)
    grouped = names.map("({})".format) | st.just("")
    merging = st.sampled_from(["avg", "sum", "max", "min"])
    return st.one_of(
        st.builds("{} {} {}".format, inner, OPERATORS, inner),
        st.builds("({} {} {})".format, inner, OPERATORS, inner),
        st.builds("{}({})".format, AGGREGATIONS, inner),
        st.builds("{}({})".format, functions, inner),
        st.builds("round({},{})".format, inner, COUNTS),
        st.builds("view_as_seq({})".format, several),
        st.builds("is_present({})".format, several),
        st.builds("relabels({},{},{})".format, inner, LABELS, LABELS),
        st.builds("aggregate_labels({},{}{})".format, inner, merging, grouped),
        st.builds("sort_values({},{},{},{})".format, inner, COUNTS, ORDERS, AGGREGATIONS),
        st.builds("sort_label_values({},{},{})".format, inner, ORDERS, names),
    )


EXPRESSIONS = st.recursive(LEAVES, grown, max_leaves=6)
KINDS = {"SINGLE_VALUE": "single", "TIME_SERIES_VALUES": "series", "SORTED_LIST": "list"}


@pytest.fixture(scope="module")
def store() -> MadeStore:
    return MadeStore(DATA)


def compare(found: ExpressionResult, expression: str, entity: str | None) -> None:
    try:
        wanted = Reference(expression, DATA, entity).evaluate()
    except FaultError:
        assert found.error is not None
        return
    assert (found.error, KINDS[found.type]) == (None, wanted.kind)
    assert found.is_comparison is wanted.compared
    assert [series.labels for series in found.series] == [row.labels for row in wanted.rows]
    for series, row in zip(found.series, wanted.rows, strict=True):
        values = [math.nan if value is None else value for value in row.values]
        assert series.values.tolist() == pytest.approx(values, rel=1e-9, nan_ok=True)
        assert list(series.ids or [None] * len(values)) == (row.ids or [None] * len(values))


@settings(max_examples=200)
@given(expression=EXPRESSIONS, entity=st.sampled_from(["a", "a", "b", "nobody", None]))
@example("avg(pct) - statuses", "a")
@example("top_n(cpm,3,des) * avg(pct)", "a")
@example("aggregate_labels(max(pct),max(p))", "a")
@example("cpm > 1 && (time < 3 || none == 0)", "a")
@example("top_n(cpm,3,DES,attr0!='K8S_SERVICE') != min(statuses)", "a")
def test_the_reference_agrees(store: MadeStore, expression: str, entity: str | None) -> None:
    compare(store.ask(expression, entity), expression, entity)


@pytest.mark.long
@settings(max_examples=20_000)
@given(expression=EXPRESSIONS, entity=st.sampled_from(["a", "b", None]))
def test_the_reference_agrees_on_many(
    store: MadeStore, expression: str, entity: str | None
) -> None:
    compare(store.ask(expression, entity), expression, entity)
