"""How endpoints are named: one path has one spelling, and no query."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.places import endpoint_name

from framewalk.engine import Plan, Store, read_entities, replay
from framewalk.engine.stages.columns import endpoint_expression

CASES = Path(__file__).parent / "cases"
A_YEAR_S = 366 * 86_400
GET = 0
PIECES = (
    "/",
    "a",
    "%",
    "C3",
    "A9",
    "%C3%A9",
    "%c3",
    "%25",
    "41",
    "é",
    "😀",
    "%F0%9F%98%80",
    "?",
    "#",
    "\n",
)


def names_of(paths: list[str]) -> list[str]:
    frame = pl.DataFrame({"path": paths}, schema={"path": pl.String})
    frame = frame.with_columns(method=pl.lit(GET))
    return frame.select(endpoint_expression()).to_series().to_list()


def test_one_operation_is_one_endpoint_over_both_versions(plan: Plan) -> None:
    case = CASES / "21-http2-query-string" / "case.capture.arrows"
    entities = read_entities(CASES / "03-leading-zero-ip" / "kubectl.yaml")
    with Store(":memory:", plan) as store:
        replay([case], entities, store, most_ahead_s=A_YEAR_S)
        calls = "kubernetes_service_endpoint_http_call_cpm"
        query = f"SELECT endpoint, {calls} FROM endpoint_minute ORDER BY ALL"
        found = dict(store.query(query).fetchall())
    assert found.pop("GET:/" + "a" * 145) == 1
    assert found == {
        "GET:": 1,
        "GET:/a": 1,
        "GET:/café/search": 5,
        "GET:http://shop.d/search": 1,
        "OPTIONS:*": 1,
    }


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a?token=s3cret", "GET:/a"),
        ("/a#here", "GET:/a"),
        ("/a%3Ftoken=s3cret", "GET:/a"),
        ("/caf%c3%a9", "GET:/café"),
        ("/%2541", "GET:/%41"),
        ("/bad%E9?token=%E9", "GET:/bad%E9"),
        ("/" + "%D0%B6" * 2_000, "GET:/" + "ж" * 145),
        ("/x" + "%F0%9F%98%80" * 2_000, "GET:/x" + "😀" * 144),
    ],
)
def test_a_path_is_named_as_it_is_meant(path: str, name: str) -> None:
    assert names_of(["/", path, "/%41"]) == ["GET:/", name, "GET:/A"]


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), min_size=1))
def test_names_are_those_of_the_reference(paths: list[str]) -> None:
    assert names_of(paths) == [endpoint_name("GET", path) for path in paths]
