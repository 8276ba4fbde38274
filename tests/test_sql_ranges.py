"""What `framewalk sql` makes of a range of time, of names and of parameters."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
from pathlib import Path

import pytest
import typer
from prepared import framewalk

from framewalk.cli.asking import Asking, Said, values_of
from framewalk.cli.ranges import Range, Wanted
from framewalk.engine import Store, load_plan, read_entities, replay
from framewalk.queries.reading import SqlAnswer

BOOKINFO = Path(__file__).parent.parent / "fixtures" / "captures" / "bookinfo"
USAGE, WRONG = 2, 1


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


STORED = Range(utc("2026-11-02T09:00"), utc("2026-11-02T09:06"))
NOW = utc("2026-11-29T12:00")


@pytest.mark.parametrize(
    ("options", "now", "expected"),
    [
        ((None, None, None), None, STORED),
        ((None, None, None), NOW, (STORED.since, NOW)),
        (("1h", None, None), None, (utc("2026-11-02T08:06"), STORED.until)),
        (("1h30m", None, None), NOW, (utc("2026-11-29T10:30"), NOW)),
        (("2d", None, "2026-11-02"), None, (utc("2026-10-31"), utc("2026-11-02"))),
        ((None, "2026-11-02T09:02", None), None, (utc("2026-11-02T09:02"), STORED.until)),
        ((None, "2026-11-02T09:02Z", None), NOW, (utc("2026-11-02T09:02"), NOW)),
        ((None, None, "2026-11-02T11:05+02:00"), NOW, (STORED.since, utc("2026-11-02T09:05"))),
        (("900000000d", None, None), NOW, (utc("1970-01-01"), NOW)),
        # The clock of a server is behind what it has.
        ((None, None, None), utc("2026-11-01"), STORED),
    ],
)
def test_ranges(
    options: tuple[str | None, ...], now: dt.datetime | None, expected: tuple[dt.datetime, ...]
) -> None:
    assert Wanted.read(*options).within(lambda: STORED, now) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("1x", None, None), "'1x' is no length of time"),
        (("", None, None), "'' is no length of time"),
        (("0m", None, None), "'0m' is no length of time"),
        (("-1h", None, None), "'-1h' is no length of time"),
        (("99999999999999d", None, None), "longer than there are times"),
        (("1h", "2026-11-02", None), "give one of them"),
        ((None, "yesterday", None), "'yesterday' is no time"),
        ((None, None, "0001-01-01T00:00+05:00"), "is no time"),
        ((None, "2026-11-03", "2026-11-02"), "nothing is from 2026-11-03T00:00:00Z to 2026-11-02T"),
        ((None, "2026-11-03", "2026-11-03"), "nothing is from"),
        ((None, "2026-11-30", None), "nothing is from 2026-11-30T00:00:00Z to 2026-11-29T"),
        ((None, None, "2026-11-02"), "nothing is from 2026-11-02T09:00:00Z to 2026-11-02T00:"),
    ],
)
def test_impossible_ranges(options: tuple[str | None, ...], words: str) -> None:
    with pytest.raises(typer.BadParameter, match=re.escape(words)):
        Wanted.read(*options).within(lambda: STORED, NOW)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (["x"], "'x' is not a name and its value"),
        (["1=x"], "'1=x' is not a name and its value"),
        (["since=2026-11-02"], "a time is given by --from, --to or --last"),
        (["service=a"], "it is given twice"),
        (["a=1", "a=2"], "it is given twice"),
    ],
)
def test_impossible_parameters(parameters: list[str], words: str) -> None:
    with pytest.raises(typer.BadParameter, match=re.escape(words)):
        values_of("reviews", None, parameters)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranges")
    oal = folder / "few.oal"
    oal.write_text(
        "service_logs = from(K8SService.*).count();\n"
        "kinds = from(K8SService.*).labelCount(type);\n",
        encoding="utf-8",
    )
    path = folder / "few.duckdb"
    with Store(path, load_plan([oal])) as opened:
        replay([BOOKINFO], read_entities(BOOKINFO / "kubectl.yaml"), opened)
    return path


def run(store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return framewalk("sql", *arguments, "--store", store)


def test_a_query_of_ones_own_has_places(store: Path) -> None:
    query = (
        "SELECT '$since' AS quoted, count(DISTINCT time_bucket) AS minutes, "
        "min(time_bucket) AS first "
        "FROM service_minute -- not $here\n"
        "WHERE time_bucket >= $since AND time_bucket < $until AND service = $service "
        "AND service_logs > $least"
    )
    named = ["--service", "reviews.bookinfo", "-p", "least=1"]
    done = run(store, query, "--last", "2m", *named, "--format", "json")
    assert (done.returncode, done.stderr) == (
        0,
        "from 2026-11-02T09:04:00Z to 2026-11-02T09:06:00Z\n",
    )
    rows = [{"quoted": "$since", "minutes": 2, "first": "2026-11-02T09:04:00"}]
    assert json.loads(done.stdout) == {
        "from": "2026-11-02T09:04:00Z",
        "to": "2026-11-02T09:06:00Z",
        "truncated": False,
        "rows": rows,
    }


def test_a_list_is_a_page(store: Path) -> None:
    query = ["top_services", "-p", "metric=kinds.read", "--last", "1h", "--format", "csv"]
    short, whole = run(store, *query, "--limit", "2"), run(store, *query, "--limit", "0")
    assert len(short.stdout.splitlines()) == 3
    assert whole.stdout.startswith(short.stdout)
    assert len(whole.stdout.splitlines()) > 3
    assert short.stderr.endswith("these are the first 2 rows; --limit 0 prints all\n")
    assert whole.stderr.count("\n") == 1


def test_a_series_of_one_service_is_no_page() -> None:
    """Fifty rows of it would be its beginning."""
    assert [_limit("trend", **values) for values in ({}, {"service": "a.b"})] == [50, None]
    assert _limit("errors", service="a.b") == 50


def _limit(name: str, **values: str) -> int | None:
    class Source:
        def ask(self, query: str) -> SqlAnswer:
            raise AssertionError(query)

    said = Said(Wanted.read("1h", None, "2026-11-02"), values, None)
    return Asking(Source(), None, said).find(name).limit


def test_a_view_has_a_range_and_a_limit(store: Path) -> None:
    done = run(store, "service_minute", "--to", "2026-11-02T09:01", "-n", "3", "--format", "csv")
    _, *rows = done.stdout.splitlines()
    assert [row[:20] for row in rows] == ["2026-11-02 09:00:00,"] * 3
    none = run(store, "metrics", "--last", "1h")
    assert (none.returncode, none.stdout) == (WRONG, "")
    assert none.stderr.startswith("error: metrics: this view has no time_bucket")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["service_dashboard"], USAGE, "--service NAME: the query asks for $service"),
        (["top_services", "-p", "metric=nope"], WRONG, "there is no such metric of these entities"),
        (["dropped", "--last", "1h"], USAGE, "dropped has no range of time"),
        (["SELECT $x", "-p", "y=1"], USAGE, "this query has no $y"),
        (["SELECT 1", "--limit", "5"], USAGE, "write LIMIT into your own"),
    ],
)
def test_what_does_not_go_together(
    store: Path, arguments: list[str], code: int, words: str
) -> None:
    done = run(store, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in " ".join(done.stderr.replace("│", " ").split())
