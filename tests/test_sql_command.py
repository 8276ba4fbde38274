"""What `framewalk sql` and `--help` print, in a terminal of 80 columns and in a pipe.

Every test runs the real command in a process of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from prepared import COMMAND, framewalk
from processes import ending
from waiting import DEADLINE_S

ROOT = Path(__file__).parent.parent
BOOKINFO = ROOT / "fixtures" / "captures" / "bookinfo"
NARROW = "service_cpm = from(K8SService.*).cpm();\n"
WIDE = "".join(f"service_number_{i:02}_cpm = from(K8SService.*).cpm();\n" for i in range(12))
STYLE = re.compile(r"\x1b\[[0-9;]*m")
VALUES: tuple[tuple[str, object], ...] = (
    ("MAP {TIMESTAMP '2020-01-01': 1}", {"2020-01-01T00:00:00": 1}),
    ("MAP {1: 'x', 2: NULL}", {"1": "x", "2": None}),
    ("MAP {true: DATE '2020-01-01'}", {"true": "2020-01-01"}),
    ("1.5", 1.5),
    ("2.0", 2),
    ("12345678901234567890::DECIMAL(38, 0)", 12345678901234567890),
    ("0.10::DECIMAL(38, 10)", 0.1),
    ("12345678901234567890.123456789::DECIMAL(38, 9)", "12345678901234567890.123456789"),
    ("INTERVAL '1 month 2 days 3 hours'", "32 days 3:00:00"),
    ("[INTERVAL '-90.5 seconds']", ["-0 days -0:01:30.500000"]),
    ("'NaN'::DOUBLE", None),
    ("['Infinity'::DOUBLE, 1.25]", [None, 1.25]),
    ("'\\xAB\\x01'::BLOB", "ab01"),
    ("TIME '10:20:30'", "10:20:30"),
    ("TIMESTAMP '2020-01-01 10:20:30'", "2020-01-01T10:20:30"),
    ("{'a': 0.5, 'b': true}", {"a": 0.5, "b": True}),
    ("[1, 2]::INTEGER[2]", [1, 2]),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with few metrics, and none of the shipped ones."""
    folder = tmp_path_factory.mktemp("sql")
    oal = folder / "small.oal"
    oal.write_text(NARROW + WIDE, encoding="utf-8")
    path = folder / "small.duckdb"
    flags = ["-e", BOOKINFO / "kubectl.yaml", "-s", path, "--oal", oal]
    done = framewalk("replay", BOOKINFO, *flags)
    assert done.returncode == 0, done.stderr
    return path


def run_in_terminal(*arguments: str | Path) -> list[str]:
    """Run a command in a terminal of 80 columns and return its lines, without styles."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 40, 80, 0, 0))
    sizeless = {name: os.environ[name] for name in os.environ.keys() - {"COLUMNS", "LINES"}}
    environment = sizeless | {"TERM": "xterm"}
    command = [COMMAND, *map(str, arguments)]
    pipes = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    with ending(subprocess.Popen(command, env=environment, **pipes)) as process:  # type: ignore[call-overload]
        os.close(terminal)
        printed = b"".join(iter(lambda: _read(master), b""))
        assert process.wait(DEADLINE_S) == 0, printed
    os.close(master)
    return STYLE.sub("", printed.decode()).splitlines()


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65_536)
    except OSError:
        # How Linux says that the other side is closed.
        return b""


def query(store: Path, text: str, form: str) -> str:
    done = framewalk("sql", text, "-s", store, "-f", form)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_many_columns_are_lines_in_a_terminal(store: Path) -> None:
    text = "SELECT *, NULL AS nothing FROM service_minute ORDER BY ALL LIMIT 2"
    lines = run_in_terminal("sql", text, "-s", store)
    assert [line for line in lines if line.startswith("row")] == ["row 1", "row 2"]
    assert " service                 details.bookinfo" in lines
    assert sum(line.startswith(" service_number_07_cpm   ") for line in lines) == 2
    assert not any("nothing" in line for line in lines)
    assert max(map(len, lines)) <= 80


TOO_WIDE = (
    "SELECT range AS requests_per_minute_of_all, 'istio-ingressgateway.istio-system' AS source, "
    "'what was said of it, in many words' AS problem_of_it, 1234567890 AS sent_bytes, "
    "TIMESTAMP '2026-11-02 09:00' AS at FROM range(2)"
)


def test_a_table_is_made_to_fit_the_terminal(store: Path) -> None:
    """Names are on several lines, texts are shortened; numbers and times are whole."""
    lines = run_in_terminal("sql", TOO_WIDE, "-s", store)
    head, rows = [line.rstrip() for line in lines if "─" not in line][1:-2], lines[-4:-2]
    assert max(map(len, lines)) <= 80
    assert [row.split()[0] for row in rows] == ["0", "1"]
    assert all(re.search(r" 1,234,567,890 +2026-11-02 09:00:00$", row) for row in rows)
    assert all(re.search(r"^ +\d +istio\S*…\S*ystem +what.*… +1", row) for row in rows)
    assert "".join(line.split()[0] for line in head[:4]) == "requests_per_minute_of_"
    assert "--format wide" in lines[-1]


def test_a_table_that_cannot_fit_is_a_line_for_each_column(store: Path) -> None:
    words = ", ".join(f"'{'word' * 6} {i}' AS column_{i}" for i in range(7))
    lines = run_in_terminal("sql", f"SELECT 1234 AS number, {words} FROM range(2)", "-s", store)
    assert [line for line in lines if line.startswith("row")] == ["row 1", "row 2"]
    assert lines.count(f" column_4   {'word' * 6} 4") == 2


def test_a_wide_table_is_as_it_is(store: Path) -> None:
    lines = run_in_terminal("sql", TOO_WIDE, "-s", store, "-f", "wide")
    printed = query(store, TOO_WIDE, "wide")
    assert [line for line in lines if line] == [line for line in printed.splitlines() if line]
    assert printed == query(store, TOO_WIDE, "table")
    assert (
        printed.count("istio-ingressgateway.istio-system   what was said of it, in many words") == 2
    )


def test_table_in_a_pipe_has_one_line_per_row(store: Path) -> None:
    text = "FROM service_minute LIMIT 20"
    header, rule, *rows = query(store, text, "table").split("\n")[1:-2]
    assert header.split()[:3] == ["time_bucket", "entity_id", "service"]
    assert set(rule) == {" ", "─"}
    assert len(rows) == 20


def test_empty_table_shows_its_columns(store: Path) -> None:
    assert query(store, "SELECT 1 AS a, 2 AS b WHERE false", "table").split()[:2] == ["a", "b"]


def test_json_values(store: Path) -> None:
    columns = ", ".join(f"{text} AS c{number}" for number, (text, _) in enumerate(VALUES))
    (row,) = json.loads(query(store, f"SELECT {columns}", "json"), parse_constant=pytest.fail)
    for value, (text, expected) in zip(row.values(), VALUES, strict=True):
        assert (value, type(value)) == (expected, type(expected)), text


@pytest.mark.parametrize("text", ["-2 days -0:00:01", "0:00:00.5", "400 days 23:59:59.999999"])
def test_intervals_can_be_read_again(store: Path, text: str) -> None:
    (row,) = json.loads(query(store, f"SELECT INTERVAL '{text}' AS a", "json"))
    same = f"SELECT INTERVAL '{text}' = INTERVAL '{row['a']}' AS same"
    assert query(store, same, "csv") == "same\nTrue\n"


def test_json_keeps_columns_of_one_name(store: Path) -> None:
    printed = query(store, "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a", "json")
    assert json.loads(printed) == [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}]


def test_nested_values_in_csv(store: Path) -> None:
    text = "SELECT MAP {DATE '2020-01-01': 'NaN'::FLOAT} AS a, [1.5, 2.0] AS b, 'x'::BLOB AS c"
    expected = 'a,b,c\n"{""2020-01-01"": null}","[1.5, 2]",78\n'
    assert query(store, text, "csv") == expected


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("services", "kubernetes_service_http_call_cpm"),
        ("service_map", "kubernetes_service_relation_server_http_call_cpm"),
    ],
)
def test_shipped_query_without_its_metrics(store: Path, name: str, metric: str) -> None:
    done = framewalk("sql", name, "-s", store)
    assert (done.returncode, done.stdout) == (1, "")
    problem = f"this store has no metric {metric}; it was made with other definitions"
    assert done.stderr.startswith(f"error: {name}: {problem}; ")
    assert len(done.stderr.splitlines()) == 1


def test_the_name_of_a_view_is_a_query(store: Path) -> None:
    header, *rows = query(store, "service_minute", "csv").splitlines()
    assert header.startswith("time_bucket,entity_id,service,service_cpm,")
    assert rows


@pytest.mark.parametrize(
    ("command", "usage", "paragraph"),
    [
        (["replay"], "replay [OPTIONS] {CAPTURE}...", "A capture that the file already holds is"),
        (["sql"], "sql [OPTIONS] {QUERY}", "Views: SCOPE_minute,"),
        (["oal", "check"], "oal check [OPTIONS] [PATH]...", "All files are checked together,"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_help_in_a_terminal(command: list[str], usage: str, paragraph: str) -> None:
    lines = [line.strip() for line in run_in_terminal(*command, "--help")]
    assert f"Usage: framewalk {usage}" in lines
    assert any(line.startswith(paragraph) for line in lines)
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "America/New_York"])
def test_the_last_hour_is_that_of_utc_in_every_zone(store: Path, zone: str) -> None:
    ago = "now() AT TIME ZONE 'UTC' - to_minutes(minutes)"
    rows = f"SELECT {ago} AS time_bucket FROM (VALUES (1), (59), (61)) t(minutes)"
    query = f"SELECT count(*) FROM ({rows}) WHERE time_bucket > now() - INTERVAL 1 HOUR"
    command = [COMMAND, "sql", query, "--store", str(store), "--format", "csv"]
    environment = os.environ | {"TZ": zone}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "2"
