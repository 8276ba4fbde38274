"""`framewalk mqe` says what the recorded answers of an OAP say, of a file and through a server."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import duckdb
import pytest
from prepared import framewalk
from sql_serving import serving, url

USAGE, WRONG = 2, 1
CPM = "kubernetes_service_http_call_cpm"
RANGE = ("--from", "2026-11-28T13:55", "--to", "2026-11-28T14:06")
A = ("--service", "productpage.bookinfo")


def printed(*arguments: str | Path) -> list[list[str]]:
    done = framewalk("mqe", *arguments)
    assert done.returncode == 0, done.stderr
    return list(csv.reader(io.StringIO(done.stdout)))


def complaint(*arguments: str | Path) -> str:
    done = framewalk("mqe", *arguments)
    assert (done.returncode, done.stdout) == (WRONG, "")
    return done.stderr


def test_results_of_each_kind(golden_store: Path) -> None:
    store = ("--store", golden_store, *RANGE)
    rows = printed(CPM, *A, *store)
    values = ["", "1", "295", "296", "269", "317", "318", "312", "", "", ""]
    assert rows[0] == ["time", "value"]
    assert [value for _, value in rows[1:]] == values
    assert rows[1][0] == "2026-11-28 13:55:00"
    percentiles = "kubernetes_service_percentile{p='50,99'}"
    assert printed(f"max({percentiles})", *A, *store) == [
        ["labels", "value"],
        ["p=50", "10"],
        ["p=99", "70"],
    ]
    assert printed(f"top_n({CPM},2,des)", *store) == [
        ["name", "value"],
        ["productpage.bookinfo", "258"],
        ["istio-ingressgateway.istio-system", "245"],
    ]
    relation = "kubernetes_service_relation_client_http_call_cpm"
    both = (*A, "--dest-service", "reviews.bookinfo")
    assert printed(f"latest({relation})", *both, *store) == [["value"], ["252"]]


def test_a_metric_that_is_not_there_is_told_in_one_sentence(golden_store: Path) -> None:
    (line,) = complaint(f"avg({CPM}x)", *A, "--store", golden_store).splitlines()
    problem = f"Metric: [{CPM}x] does not exist; did you mean {CPM}?"
    assert line == f"error: avg({CPM}x): {problem}"


def test_json_says_what_it_is_about(golden_store: Path) -> None:
    done = framewalk("mqe", f"sum({CPM})", *A, *RANGE, "-s", golden_store, "-f", "json")
    assert json.loads(done.stdout) == {
        "from": "2026-11-28T13:55:00Z",
        "to": "2026-11-28T14:06:00Z",
        "step": "minute",
        "type": "SINGLE_VALUE",
        "rows": [{"value": 1808}],
    }


def test_ranges_and_steps(golden_store: Path) -> None:
    store = ("--store", golden_store)
    # The last hour ends with the newest minute.
    rows = printed("kubernetes_service_percentile{p='50,99'}", *A, *store)
    assert rows[0] == ["time", "p=50", "p=99"]
    assert (len(rows), rows[-1]) == (1 + 60, ["2026-11-28 14:02:00", "0", "70"])
    by_hour = printed(CPM, *A, *store, "--last", "12h")
    assert [value for _, value in by_hour[-2:]] == ["14", "15"]
    assert printed(CPM, *A, *store, "--step", "day") == [
        ["time", "value"],
        ["2026-11-28 00:00:00", "1"],
    ]


def explained(expression: str, *named: str | Path) -> str:
    done = framewalk("mqe", "explain", expression, *named)
    assert done.returncode == 0, done.stderr
    (statement,) = done.stdout.splitlines()
    return statement


def values_of(statement: str, *named: str | Path) -> list[float]:
    """Return the last value of each row that `framewalk sql` gives."""
    done = framewalk("sql", statement, *named, "-f", "csv")
    assert done.returncode == 0, done.stderr
    return [float(line.split(",")[-1]) for line in done.stdout.splitlines()[1:]]


@pytest.mark.parametrize("step", ["minute", "hour", "day"])
def test_explained_is_sql_that_gives_the_values(golden_store: Path, step: str) -> None:
    named = (*A, *RANGE, "--step", step, "-s", golden_store)
    statement = explained(f"avg({CPM}) + 1", *named)
    values = values_of(statement, "-s", golden_store)
    asked = [float(row[1]) for row in printed(CPM, *named)[1:] if row[1]]
    assert sorted(values) == sorted(asked)
    if step == "minute":
        assert sorted(values) == [1, 269, 295, 296, 312, 317, 318]
    # What is run has the columns that are asked for, and is no view with all of them.
    assert f"service_{step} " not in statement
    assert "internal.service_states" in statement
    assert "percentile" not in statement


def test_an_explained_list_is_sql_that_gives_it(golden_store: Path) -> None:
    named = (*RANGE, "-s", golden_store)
    statement = explained(f"top_n({CPM},3,des)", *named)
    listed = [float(value) for _, value in printed(f"top_n({CPM},3,des)", *named)[1:]]
    assert values_of(statement, "-s", golden_store) == listed
    assert listed[:2] == [258, 245]
    assert "internal.service_states" in statement


def test_explained_for_a_server_is_what_it_is_asked(golden_store: Path, tmp_path: Path) -> None:
    with (
        duckdb.connect(golden_store, read_only=True) as connection,
        serving(connection, tmp_path / "elsewhere.duckdb") as server,
    ):
        there = ("--server", url(server))
        statement = explained(f"avg({CPM}) + 1", *A, *RANGE, *there)
        assert "FROM service_minute " in statement
        assert sorted(values_of(statement, *there)) == [1, 269, 295, 296, 312, 317, 318]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cpm x",), "line 1:4 'x' does not belong"),
        (("kubernetes_service_http_cal_cpm", *A), f"did you mean {CPM}?"),
        (("kubernetes_service_relation_client_http_call_cpm", *A), "give --dest-service"),
    ],
)
def test_what_is_wrong_is_said(golden_store: Path, arguments: tuple[str, ...], words: str) -> None:
    error = complaint(*arguments, "--store", golden_store)
    assert words in error
    assert "Traceback" not in error


def test_wrong_usage(golden_store: Path) -> None:
    assert framewalk("mqe", "explain", "1", "2", "-s", golden_store).returncode == USAGE


def test_a_server_is_asked(golden_store: Path, tmp_path: Path) -> None:
    with (
        duckdb.connect(golden_store, read_only=True) as connection,
        serving(connection, tmp_path / "elsewhere.duckdb") as server,
    ):
        there = (*RANGE, "--server", url(server))
        rows = printed(f"increase({CPM}, 1) + kubernetes_service_percentile{{p='99'}}", *A, *there)
        assert [value for _, value in rows[1:7]] == ["", "", "344", "51", "13", "118"]
        assert printed(f"top_n({CPM},1,des)", *there)[1] == ["productpage.bookinfo", "258"]
