"""How endpoints are named: one path has one spelling, and no query."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.places import endpoint_name

from framewalk.engine import Plan, Store, load_plan, read_entities, replay
from framewalk.engine.errors import InputError
from framewalk.engine.oal.files.endpoints import read_endpoint_patterns
from framewalk.engine.oal.plan import EndpointPatterns
from framewalk.engine.stages.columns import endpoint_expression

CASES = Path(__file__).parent / "cases"
BOOKINFO = Path(__file__).parent.parent / "fixtures" / "captures" / "bookinfo"
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


UUID = "0b5f3e0a-7c1d-4e9b-8a52-3f6d2c1b0a99"
ALL = EndpointPatterns(("number", "uuid", "hex"))


def folded(path: str, patterns: EndpointPatterns, service: str = "a.d") -> str:
    frame = pl.DataFrame({"path": [path, "/1"], "method": [GET, GET]})
    names = frame.select(endpoint_expression(patterns, pl.Series([service, "other.d"])))
    return str(names.item(0, 0)).removeprefix("GET:")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/1/22/3", "/{number}/{number}/{number}"),
        ("/details/0?x=1", "/details/{number}"),
        ("/v1/1a/-1/1.5/1\n", "/v1/1a/-1/1.5/1\n"),
        (f"/carts/{UUID}/items", "/carts/{uuid}/items"),
        (f"/carts/{UUID.upper()}", "/carts/{uuid}"),
        (f"/carts/{UUID}0", f"/carts/{UUID}0"),
        ("/blobs/9f86d081/9F86D081884C7D65", "/blobs/{hex}/{hex}"),
        ("/blobs/9f86d08", "/blobs/9f86d08"),
        ("/12345678", "/{number}"),
        ("//", "//"),
        ("", ""),
        ("/1" * 100, "/{number}" * 16 + "/{"),
    ],
)
def test_whole_segments_are_folded(path: str, name: str) -> None:
    assert folded(path, ALL) == name


def test_each_service_has_its_patterns(tmp_path: Path) -> None:
    file = tmp_path / "patterns.yml"
    file.write_text("default: [uuid]\na.d: [hex, number]\nb.d: []\n", encoding="utf-8")
    patterns = read_endpoint_patterns(file)
    path = f"/1/{UUID}/9f86d081"
    assert folded(path, patterns, "a.d") == f"/{{number}}/{UUID}/{{hex}}"
    assert folded(path, patterns, "b.d") == path
    assert folded(path, patterns, "c.d") == "/1/{uuid}/9f86d081"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.d: [word]", "1: there is no pattern 'word'; there are number, uuid, hex"),
        ("a.d: number", "1: what 'a.d' has is no list"),
        ("a.d: []\na.d: []", "2: 'a.d' is also in line 1"),
        ("- a.d", "1: there is no mapping of services"),
        ("a.d: [[number]]", "1: there is no pattern ''"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "patterns.yml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as told:
        read_endpoint_patterns(file)
    assert str(told.value).startswith(f"{file}:{said}")


def test_a_replay_folds_what_a_service_asked_for(tmp_path: Path) -> None:
    oal = tmp_path / "some.oal"
    oal.write_text(
        "calls = from(K8SEndpoint.*).cpm();\n"
        'folded = from(K8SEndpoint.*).filter(endpointName like "%{number}").cpm();\n',
        encoding="utf-8",
    )
    entities = read_entities(BOOKINFO / "kubectl.yaml")
    patterns = EndpointPatterns((), {"details.bookinfo": ("number",)})
    with Store(":memory:", load_plan([oal], endpoint_patterns=patterns)) as store:
        replay([BOOKINFO], entities, store)
        query = "SELECT endpoint, sum(calls), sum(folded) FROM endpoint_minute GROUP BY ALL"
        found = {name: (calls, folded) for name, calls, folded in store.query(query).fetchall()}
    calls, folded = found["GET:/details/{number}"]
    assert calls == folded > 100
    # Nobody asked for it there.
    assert found["GET:/ratings/0"][1] is None
    assert "GET:/details/0" not in found
