"""`framewalk oal` as people and CI run it: output, exit codes, files; and the pages of it."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

from framewalk.cli import main
from framewalk.engine.explain.metric import aggregation, explain_metric
from framewalk.engine.explain.reference import pages
from framewalk.engine.oal.binding import bind
from framewalk.engine.oal.files.apdex import read_apdex_thresholds
from framewalk.engine.oal.files.definitions import load_plan
from framewalk.engine.oal.parser import parse
from framewalk.engine.oal.plan import Plan
from framewalk.engine.schemas import OPERATION_LEAVES
from framewalk.engine.stages.columns import with_derived
from framewalk.engine.stages.peer_states import _aggregate

ROOT = Path(__file__).parents[2]
GOOD = "a = from(K8SService.*).cpm();\n"
ODD = "a=from( K8SService . * ) .cpm( )// why\n"
BAD = "a = from(K8SService.*).cpn();\nb = form(K8SService.*).cpm();\n"


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def framewalk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["framewalk", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Done(code, *capsys.readouterr())

    return run


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_check_of_the_shipped_definitions(framewalk: Run) -> None:
    assert framewalk("oal", "check") == (0, "8 files, 447 definitions, no errors\n", "")


def test_check_lists_all_errors_of_all_files(framewalk: Run, tmp_path: Path) -> None:
    first = write(tmp_path / "1.oal", BAD)
    second = write(tmp_path / "deep" / "2.oal", "disable(c)")
    code, out, err = framewalk("oal", "check", tmp_path)
    assert (code, err) == (1, "")
    assert [line.split(";")[0] for line in out.splitlines() if ": error: " in line] == [
        f"{first}:1:24: error: unknown function 'cpn'",
        f"{first}:2:5: error: cannot read this statement",
        f"{second}:1:9: error: there is no metric 'c' to disable",
    ]
    assert "hint: did you mean cpm?" in out
    assert out.endswith("\n2 files, 1 definition, 3 errors\n")


def test_check_passes_with_warnings(framewalk: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "1.oal", f'{GOOD}b = from(Service.*).cpm().decorator("x");')
    code, out, _ = framewalk("oal", "check", path, "--skip-unknown-scopes")
    assert code == 0
    assert f"{path}:2:10: warning: unknown scope 'Service'; want one of" in out
    assert out.endswith("\n1 file, 2 definitions, no errors, 1 warning\n")
    assert framewalk("oal", "check", path).code == 1


def test_what_cannot_be_read_is_told(framewalk: Run, tmp_path: Path) -> None:
    missing = framewalk("oal", "check", tmp_path / "no.oal")
    assert missing.code == 1
    assert "no such file or directory" in missing.err
    empty = framewalk("oal", "format", tmp_path)
    assert (empty.code, empty.out) == (1, "")
    assert "no *.oal file in this folder" in empty.err


def test_format_writes_the_canonical_form(framewalk: Run, tmp_path: Path) -> None:
    odd, good = write(tmp_path / "1.oal", ODD), write(tmp_path / "2.oal", "b" + GOOD[1:])
    odd.chmod(0o640)
    stood = good.stat().st_mtime_ns
    code, out, err = framewalk("oal", "format", tmp_path)
    assert (code, out, err) == (0, f"changed {odd}\n1 file changed, 1 unchanged\n", "")
    assert odd.read_text() == "a = from(K8SService.*).cpm(); // why\n"
    assert stat.S_IMODE(odd.stat().st_mode) == 0o640
    assert good.stat().st_mtime_ns == stood
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.oal", "2.oal"]
    assert framewalk("oal", "format", tmp_path).out == "0 files changed, 2 unchanged\n"


def test_format_check_changes_nothing(framewalk: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "1.oal", ODD)
    assert framewalk("oal", "format", "--check", path) == (
        1,
        f"would change {path}\n1 file would change, 0 unchanged\n",
        "",
    )
    assert path.read_text() == ODD
    write(path, GOOD)
    assert framewalk("oal", "format", "--check", path).code == 0


def test_format_leaves_files_with_syntax_errors_and_links(framewalk: Run, tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.oal", BAD)
    target = write(tmp_path / "elsewhere" / "odd.txt", ODD)
    link = tmp_path / "link.oal"
    link.symlink_to(target)
    code, out, _ = framewalk("oal", "format", bad, link)
    assert code == 1
    assert bad.read_text() == BAD
    assert f"{bad}:2:5: error: cannot read this statement" in out
    assert out.endswith("\n1 file changed, 0 unchanged, 1 with errors\n")
    assert link.is_symlink()
    assert target.read_text().startswith("a = from")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_format_tells_what_it_cannot_write(framewalk: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "1.oal", ODD)
    tmp_path.chmod(0o500)
    done = framewalk("oal", "format", path)
    tmp_path.chmod(0o700)
    assert done.code == 1
    assert "permission denied" in done.err
    assert path.read_text() == ODD


def test_the_shipped_definitions_are_in_canonical_form(framewalk: Run) -> None:
    assert framewalk("oal", "format", "--check", ROOT / "queries" / "oal").code == 0


def test_explain_counts_what_all_definitions_need(framewalk: Run) -> None:
    code, out, _ = framewalk("oal", "explain")
    assert code == 0
    assert out.startswith("447 definitions need 59 states of the logs\n")
    assert re.search(r"K8SServiceRelation +132 definitions +\d+ states\n", out)
    counts = {line.split()[0]: int(line.split()[1]) for line in out.splitlines()[3:9]}
    assert counts.keys() == {"connect", "accept", "close", "read", "write", "http"}
    assert sum(counts.values()) == 59


def test_explain_a_metric(framewalk: Run) -> None:
    code, out, err = framewalk("oal", "explain", "kubernetes_service_http_call_time")
    assert (code, err) == (0, "")
    for line in (
        "  kubernetes_service_http_call_time = from(K8SService.protocol.http.latency)",
        "  service_minute.kubernetes_service_http_call_time",
        "  unit ms",
        "  http logs: sum of latency_ms, by peers and minute",
        "  grouped by service (local_service), minute",
        "  CASE WHEN state_2 > 0 THEN state_1 // state_2 END",
        "  NULL where no log counts",
    ):
        assert f"{line}\n" in out
    assert 'col("latency_ms")' in out
    assert re.search(r"shared with \d+ other metrics", out)
    assert "FROM logs_http JOIN peers USING (peer)" in out


def test_explain_a_metric_of_own_definitions(framewalk: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "1.oal", "a[b] = x")
    assert framewalk("oal", "explain", "a", "--oal", path).code == 1
    write(path, "slow = from(K8SEndpoint.duration).histogram(100, 3);")
    code, out, _ = framewalk("oal", "explain", "slow", "--oal", path)
    assert code == 0
    assert "histogram of duration, of each endpoint (K8SEndpoint: service, endpoint)" in out
    assert "for this metric only" in out


def test_explain_a_misspelt_metric(framewalk: Run) -> None:
    done = framewalk("oal", "explain", "kubernetes_service_http_call_tim")
    assert (done.code, done.out) == (1, "")
    assert "did you mean kubernetes_service_http_call_time?" in done.err
    assert "there is no such metric" in framewalk("oal", "explain", "qqq").err


def test_metrics_of_all_scopes_can_be_explained(plan: Plan) -> None:
    for metric in plan.metrics[::20]:
        sections = explain_metric(plan, metric)
        assert [section.title.split(":")[0] for section in sections] == [
            "Definition",
            "Meaning",
            "Column",
            "Phase 1",
            "Phase 2",
            "Value",
            "The same as one query over the logs (DuckDB)",
        ]


def test_explain_shows_the_expressions_of_phase_1(plan: Plan) -> None:
    for operation, states in plan.log_states.items():
        names = [leaf.column for leaf in OPERATION_LEAVES[operation]]
        names += ["duration_ns", "latency_ms", "serving_duration_ns"]
        frame = pl.DataFrame(schema=dict.fromkeys(names, pl.Int64))
        frame = with_derived(
            frame.with_columns(pl.lit("").alias("path")), operation, ["success", "method_name"]
        )
        for state in states:
            if state.key is None:
                assert f"{_aggregate(state, frame)}".startswith(f"{aggregation(state)}")


def test_thresholds_can_be_given_to_replay(framewalk: Run, tmp_path: Path) -> None:
    capture = ROOT / "fixtures" / "captures" / "bookinfo"
    oal = write(
        tmp_path / "a.oal",
        f"a = from(K8SEndpoint.duration).apdex(serviceName, success);{GOOD.replace('a', 'b', 1)}"
        'c = from(K.*).cpm().decorator("x");',
    )
    thresholds = write(tmp_path / "t.yml", "default: 0\n")
    given = ("replay", capture, "-e", capture / "kubectl.yaml", "--oal", oal)
    given += ("--skip-unknown-scopes", "--apdex-thresholds", thresholds)
    wrong = framewalk(*given, "-s", tmp_path / "x.duckdb")
    assert wrong.code == 1
    assert f"{thresholds}:1: the threshold of 'default' is `0`" in wrong.err
    assert not (tmp_path / "x.duckdb").exists()
    seen = []
    for limit in (1, 100_000):
        write(thresholds, f"default: {limit}\n")
        store = tmp_path / f"{limit}.duckdb"
        done = framewalk(*given, "-s", store)
        assert done.code == 0
        assert "unknown scope 'K'" in done.err
        found = framewalk("sql", "SELECT avg(a) FROM endpoint_minute", "-s", store)
        seen.append(float(found.out.split()[-1]))
    assert seen[0] < seen[1] - 100


def test_the_reference_pages_are_fresh() -> None:
    """Run `make reference` if this fails."""
    folder = ROOT / "docs" / "reference"
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    assert found == pages()


def test_the_definitions_on_the_page_are_right(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "definitions.md").read_text(encoding="utf-8")
    for text in re.findall(r"^```oal\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        assert bind([parse(text)]).diagnostics == ()
    (thresholds,) = re.findall(r"^```yaml\n(default.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert read_apdex_thresholds(write(tmp_path / "t.yml", thresholds)).per_service_ms
    assert load_plan()
