"""Every benchmark runs and gives the right answers; runs can be compared and published."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"
PUBLISHED = BENCHMARKS / "results"

Document = dict[str, Any]
Done = subprocess.CompletedProcess[str]


def run(script: Path, *arguments: str | Path) -> Done:
    command = [sys.executable, script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def bench(*arguments: str | Path, folder: Path = BENCHMARKS) -> Done:
    return run(folder / "bench.py", "--size", "small", "--together", *arguments)


def compare(*arguments: Path) -> Done:
    return run(BENCHMARKS / "compare.py", *arguments)


def publish(results: Path, folder: Path) -> Done:
    """Publish results in a folder, where the page is copied to."""
    page = folder / "page.md"
    shutil.copy(PAGE, page)
    return run(BENCHMARKS / "page.py", results, "--page", page, "--published", folder / "published")


def fill_page(results: Path, folder: Path) -> str:
    """Return the text of a copy of the page, filled with results."""
    done = publish(results, folder)
    assert done.returncode == 0, done.stderr
    return (folder / "page.md").read_text(encoding="utf-8")


def read(path: Path) -> Document:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def write(document: Document, path: Path) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


# All benchmarks: one test, so that they run once however the tests are spread over processes.


def test_every_benchmark_gives_the_recorded_answer_and_fills_the_page(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    done = bench("--json", path)
    assert done.returncode == 0, done.stdout + done.stderr
    document = read(path)
    rows, series = document["rows"], document["series"]

    files = {path.stem for path in (BENCHMARKS / "suite").glob("*.py")}
    assert {one["benchmark"] for one in [*rows, *series]} == files
    assert {answer_key(one): answer(one) for one in [*rows, *series]} == recorded_answers()
    assert all(row["cpu_s"]["median"] > 0 and row["peak_bytes"] > 10**7 for row in rows)
    engine = next(row for row in rows if row["benchmark"] == "engine")
    rivals = [rival["name"] for rival in engine["rivals"]]
    assert rivals == ["plain DuckDB SQL", "naive Polars", "row by row in Python"]

    text = fill_page(path, tmp_path)
    assert all(f"| {row['name']} |" in text for row in rows)
    assert all(f"- **{row['name']}**: {row['limited_by']}" in text for row in rows)
    for one in series:
        assert text.count(f"![CPU seconds against {one['name']}]") == 1
        plot = tmp_path / "images" / f"benchmark_{one['name'].replace(' ', '_')}.svg"
        assert one["x_name"] in plot.read_text(encoding="utf-8")
    assert read(tmp_path / "published" / "small.json") == document
    assert fill_page(tmp_path / "published" / "small.json", tmp_path) == text


def answer_key(found: Document) -> str:
    return f"{found['benchmark']}: {found['name']}"


def answer(found: Document) -> Document:
    return {"rows": found["rows"], "checksum": found["checksum"]}


def recorded_answers() -> Document:
    return dict(read(BENCHMARKS / "answers.json")["small"])


# A wrong answer.


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the benchmarks, to break."""
    folder = tmp_path / "benchmarks"
    shutil.copytree(BENCHMARKS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_an_answer_that_differs_from_the_rivals_is_not_reported(copied: Path) -> None:
    decode = copied / "suite" / "decode.py"
    text = decode.read_text(encoding="utf-8")
    broken = text.replace("decode(piece)]", "decode(piece[1:])]")
    assert broken != text
    decode.write_text(broken, encoding="utf-8")
    done = bench("--only", "decode", "--json", copied / "results.json", folder=copied)
    assert done.returncode == 1
    assert "error: bare ptars beside decode: the answer is" in done.stderr
    assert not (copied / "results.json").exists()


def test_an_answer_that_differs_from_the_recorded_one_is_not_reported(copied: Path) -> None:
    answers = read(copied / "answers.json")
    answers["small"]["decode: decode"]["rows"] += 1
    write(answers, copied / "answers.json")
    done = bench("--only", "decode", "--json", copied / "results.json", folder=copied)
    assert done.returncode == 1
    assert "error: decode: decode: the answer is" in done.stderr
    assert "--record-answers" in done.stderr
    assert not (copied / "results.json").exists()


NEW = """
from frame.contest import Benchmark, Call, Contest, Point, Series, text_answer

def benchmark(context):
    work = Call("sum", 1, lambda: sum(range(10**6)), lambda total: text_answer(str(total)))
    contest = Contest("sum", "sums", work, "adding.")
    return Benchmark([contest], [Series("sums", "sums", [Point(1, work), Point(2, work)], "made")])
"""


def test_an_answer_that_is_not_recorded_is_not_reported(copied: Path) -> None:
    (copied / "suite" / "new.py").write_text(NEW, encoding="utf-8")
    answers = read(copied / "answers.json")

    def fails(name: str) -> bool:
        done = bench("--only", "new", folder=copied)
        told = f"error: new: {name}: the answer is " in done.stderr
        return told and "if that is meant, or this is new, run" in done.stderr

    assert fails("sum")
    assert bench("--only", "new", "--record-answers", folder=copied).returncode == 0
    recorded = read(copied / "answers.json")
    assert recorded["small"].keys() - answers["small"].keys() == {"new: sum", "new: sums"}
    assert bench("--only", "new", folder=copied).returncode == 0
    del recorded["small"]["new: sums"]
    write(recorded, copied / "answers.json")
    assert fails("sums")


def test_a_spool_that_does_not_hold_what_was_sent_is_told(copied: Path) -> None:
    ingress = copied / "ingress.py"
    text = ingress.read_text(encoding="utf-8")
    broken = text.replace("collector: Collector = Collector(", "collector: Collector = _Losing(")
    assert broken != text
    losing = """
class _Losing(Collector):
    async def _read(self, received: Any, share: Any) -> Any:
        messages, times_ns = await Collector._read(self, received, share)
        return [messages[0], *messages[:-1]], times_ns


# The client
"""
    ingress.write_text(broken.replace("# The client\n", losing), encoding="utf-8")
    done = bench("--only", "servers", folder=copied)
    assert done.returncode == 1
    assert "error: uvicorn, spool: the spool holds" in done.stderr


# Comparing.


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a few benchmarks that are soon done."""
    path = tmp_path_factory.mktemp("benchmarks") / "few.json"
    done = bench("--only", "decode", "flatten", "merge", "--json", path)
    assert done.returncode == 0, done.stdout + done.stderr
    return path


@pytest.fixture
def document(measured: Path) -> Document:
    return read(measured)


def scaled(spread: dict[str, float], factor: float) -> dict[str, float]:
    return {name: value * factor for name, value in spread.items()}


def verdicts(done: Done) -> dict[str, str]:
    """Return the last cell of each line of a table by the first."""
    cells = [line.split("│") for line in done.stdout.splitlines() if "│" in line]
    return {line[1].strip(): line[-2].strip() for line in cells}


def test_a_run_is_the_same_as_itself(measured: Path) -> None:
    done = compare(measured, measured)
    assert done.returncode == 0, done.stderr
    assert "3 rows, 0 worse" in done.stdout
    assert set(verdicts(done).values()) == {"same"}


def test_what_got_worse_is_flagged(measured: Path, document: Document, tmp_path: Path) -> None:
    decode, flatten, merge = document["rows"]
    decode["rivals"][0]["ratio"] = scaled(decode["rivals"][0]["ratio"], 1.2)
    flatten["peak_bytes"] *= 2
    merge["rivals"][0]["ratio"] = scaled(merge["rivals"][0]["ratio"], 0.5)
    done = compare(measured, write(document, tmp_path / "after.json"))
    assert done.returncode == 1
    assert "3 rows, 2 worse" in done.stdout
    assert verdicts(done) == {"decode": "worse", "flatten": "more memory", "merge": "better"}


def test_without_a_rival_cpu_time_per_unit_counts(document: Document, tmp_path: Path) -> None:
    (row, _, _) = document["rows"]
    row["rivals"] = []
    before = write(document | {"rows": [row]}, tmp_path / "before.json")
    twice_the_work = row | {"cpu_s": scaled(row["cpu_s"], 2), "count": 2 * row["count"]}
    same = write(document | {"rows": [twice_the_work]}, tmp_path / "same.json")
    assert verdicts(compare(before, same)) == {"decode": "same"}
    slower = row | {"cpu_s": scaled(row["cpu_s"], 2)}
    worse = write(document | {"rows": [slower]}, tmp_path / "worse.json")
    assert verdicts(compare(before, worse)) == {"decode": "worse"}


def test_a_change_within_the_spread_is_none(document: Document, tmp_path: Path) -> None:
    (row, _, _) = document["rows"]
    paths = []
    for name, low, median, high in (("before", 0.9, 1, 1.3), ("after", 1.2, 1.25, 1.3)):
        rivals = [row["rivals"][0] | {"ratio": {"low": low, "median": median, "high": high}}]
        rows = [row | {"rivals": rivals}]
        paths.append(write(document | {"rows": rows}, tmp_path / f"{name}.json"))
    done = compare(*paths)
    assert done.returncode == 0
    assert verdicts(done) == {"decode": "same"}


def a_series(name: str, costs: list[float]) -> Document:
    """Return a series that costs so much at 1, 2, 4 and so on."""
    points = [
        {"x": float(2**at), "cpu_s": dict.fromkeys(("median", "low", "high"), cost)}
        for at, cost in enumerate(costs)
    ]
    return {
        "benchmark": "growth",
        "name": name,
        "x_name": "side",
        "remark": "made",
        "rows": 3,
        "checksum": "0" * 16,
        "points": points,
    }


def test_series_are_compared_at_all_points(document: Document, tmp_path: Path) -> None:
    names = ["dearer", "steeper", "dearer at first", "cheaper", "as before"]
    before = [a_series(name, [1, 2, 4]) for name in names]
    costs: list[list[float]] = [[10, 20, 40], [1, 2, 5], [10, 2, 4], [0.1, 0.2, 0.4], [1, 2, 4]]
    after = [a_series(name, own) for name, own in zip(names, costs, strict=True)]
    paths = [
        write(document | {"rows": [], "series": series}, tmp_path / f"{name}.json")
        for name, series in (("before", before), ("after", after))
    ]
    done = compare(*paths)
    assert done.returncode == 1
    assert "5 rows, 3 worse" in done.stdout
    assert verdicts(done) == {
        "cost against dearer": "worse",
        "cost against steeper": "worse, more than linear",
        "cost against dearer at first": "worse",
        "cost against cheaper": "better",
        "cost against as before": "same",
    }


@pytest.mark.parametrize("field", ["rows", "checksum"])
def test_runs_with_different_answers_are_not_compared(
    measured: Path, document: Document, tmp_path: Path, field: str
) -> None:
    document["rows"][1][field] = document["rows"][2][field]
    done = compare(measured, write(document, tmp_path / "after.json"))
    assert done.returncode == 2
    assert "error: answers: the runs did not do the same work, 1 of their answers" in done.stderr
    assert "differ: flatten; compare runs over the same captures" in done.stderr


def test_series_with_different_answers_are_not_compared(document: Document, tmp_path: Path) -> None:
    series = a_series("squares", [1, 2, 4])
    before = write(document | {"series": [series]}, tmp_path / "before.json")
    other = series | {"checksum": "1" * 16}
    after = write(document | {"series": [other]}, tmp_path / "after.json")
    done = compare(before, after)
    assert done.returncode == 2
    assert "differ: cost against squares;" in done.stderr


def test_rows_of_one_run_only_are_listed(
    measured: Path, document: Document, tmp_path: Path
) -> None:
    document["rows"][1]["name"] = "another"
    done = compare(measured, write(document, tmp_path / "after.json"))
    assert done.returncode == 0
    assert verdicts(done)["flatten"] == "only before"
    assert verdicts(done)["another"] == "only after"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "no such file or directory; give a file that benchmarks/bench.py wrote"),
        ("[]", "these are no results of benchmarks; give a file that benchmarks/bench.py wrote"),
        ("{}", "these are no results of benchmarks; give a file that benchmarks/bench.py wrote"),
        ('{"format": 0}', "its format is not 2; run the benchmarks again"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(
    measured: Path, tmp_path: Path, content: str | None, error: str
) -> None:
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    done = compare(measured, path)
    assert done.returncode == 2
    assert done.stderr == f"error: {path}: {error}\n"


def test_runs_of_different_sizes_are_not_compared(
    measured: Path, document: Document, tmp_path: Path
) -> None:
    done = compare(measured, write(document | {"size": "large"}, tmp_path / "large.json"))
    assert done.returncode == 2
    assert "one run is small, the other large" in done.stderr


# Publishing.


def whole(document: Document) -> Document:
    """Return a run with rows of all benchmarks, most of them made up."""
    made = [
        document["rows"][0] | {"benchmark": path.stem, "name": path.stem}
        for path in (BENCHMARKS / "suite").glob("*.py")
    ]
    return document | {"rows": [*document["rows"], *made]}


def test_growth_that_is_more_than_linear_is_said(document: Document, tmp_path: Path) -> None:
    document["series"] = [a_series("squares", [1, 4, 16])]
    text = fill_page(write(whole(document), tmp_path / "steep.json"), tmp_path)
    assert "- Cost against **squares** grows with the power 2.00: more than linear." in text


def test_a_ratio_above_what_is_accepted_is_marked(document: Document, tmp_path: Path) -> None:
    document["rows"][0]["rivals"][0]["at_most"] = 0.01
    text = fill_page(write(whole(document), tmp_path / "slow.json"), tmp_path)
    assert "0.01, exceeded" in text


def test_a_run_that_lacks_benchmarks_is_not_published(measured: Path, tmp_path: Path) -> None:
    done = publish(measured, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {measured}: this run lacks follow, resolve, phase_1,")
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
    assert not (tmp_path / "published").exists()


def test_the_page_shows_the_published_run(tmp_path: Path) -> None:
    published = PUBLISHED / "large.json"
    assert fill_page(published, tmp_path) == PAGE.read_text(encoding="utf-8")


# On their own.


def test_a_replay_that_needs_more_memory_than_it_may_is_an_error() -> None:
    lengths = ("--lengths", "1", "2", "--seconds", "2", "--rate", "5", "--limit", "100")
    done = run(BENCHMARKS / "memory.py", *lengths, "--memory-limit", str(10**7))
    assert done.returncode == 1, done.stderr
    assert "limit 100.00\nmemory " in done.stdout
    assert done.stdout.endswith(" MB, limit 10 MB\n")


def test_the_steps_of_a_live_engine_are_told_and_every_log_is_counted(tmp_path: Path) -> None:
    found = tmp_path / "steps.json"
    size = ("--services", "12", "--minutes", "1")
    done = run(BENCHMARKS / "live_steps.py", *size, "--json", found)
    assert done.returncode == 0, done.stderr
    assert read(found)["logs"] == 3_600
    # 600 pairs of pods, six logs each.
    assert re.search(r"^look +12 ", done.stdout, re.MULTILINE)
    assert re.search(r"^\d+ commits of 3,600 logs, ", done.stdout, re.MULTILINE), done.stdout


def test_what_an_archive_costs_is_told_by_mode_kind_and_column(tmp_path: Path) -> None:
    found = tmp_path / "costs.json"
    size = ("--seconds", "10", "--rate", "2", "--rounds", "1", "--served-rounds", "0")
    done = run(BENCHMARKS / "archive_costs.py", *size, "--json", found)
    # Of so few logs each takes more than it may.
    assert done.returncode == 1, done.stderr
    costs = read(found)
    every = costs["cpu_s_per_million_logs"]
    assert len(every) == 5
    for what, modes in every.items():
        own = set() if what.startswith("a replay") else {"off"}
        assert modes.keys() == {"none", "http", "all"} | own, what
    assert all(one[0] > 0 for modes in every.values() for one in modes.values())
    assert costs["bytes_a_row"].keys() == {"http", "connection", "transfer"}
    assert all(columns["time"] > 1 for columns in costs["bytes_a_row"].values())
    told = r"^http: [\d,]+ rows, [\d.]+ bytes each, at most 65$"
    assert re.search(told, done.stdout, re.MULTILINE), done.stdout


def test_the_profile_names_every_stage_of_a_replay() -> None:
    folder = ROOT / "fixtures" / "captures" / "bookinfo"
    (capture,) = folder.glob("*.arrows")
    done = run(BENCHMARKS / "replay_profile.py", capture, "--entities", folder / "kubectl.yaml")
    assert done.returncode == 0, done.stderr
    shares = verdicts(done)
    assert shares.pop("together") == "100%"
    assert len(shares) == 11
    assert sum(int(share.rstrip("%")) for share in shares.values()) == pytest.approx(100, abs=6)
    costs = [line.split("│")[2].strip() for line in done.stdout.splitlines() if "│" in line]
    assert "0 ms" not in costs


def test_calls_and_sources_of_made_captures_are_right() -> None:
    """What docs/calls.md shows, of one capture that is hard to tell, and short."""
    done = run(BENCHMARKS / "calls.py", "--duration", "15", "--only", "boutique, busy, clocks")
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| boutique")]
    _, calls, right, _, found, exact, exact_right, inferred, inferred_right, *attributed = (
        cell.strip().replace(",", "").removesuffix("%") for cell in row.strip("| ").split("|")
    )
    assert min(int(calls), int(exact), int(inferred)) > 300
    assert min(map(float, (right, found, exact_right))) >= 99.9
    assert float(inferred_right) >= 99
    assert float(attributed[1]) >= 90
