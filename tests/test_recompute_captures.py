"""Metrics made again out of captures: as a replay of these with the new definitions gives them."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest
from conftest import CAPTURES, FEW
from prepared import framewalk
from waiting import wait_until

from framewalk.engine import Store, load_plan
from framewalk.engine.captures import CaptureReader, CaptureWriter

FRAMEWALK = Path(sys.executable).with_name("framewalk")
BOOKINFO, BOUTIQUE = CAPTURES / "bookinfo", CAPTURES / "boutique"
VIEWS = [
    f"{scope}_{length}"
    for scope in (
        *("service", "service_instance", "endpoint"),
        *("service_relation", "service_instance_relation"),
    )
    for length in ("minute", "hour", "day")
]
CALLS = 'my_calls = from(K8SService.*).filter(type == "connect").count();\n'


def rows_of(store: Path) -> dict[str, list[tuple[object, ...]]]:
    with duckdb.connect(str(store), read_only=True) as connection:
        found = {}
        for view in VIEWS:
            names = sorted(connection.sql(f"FROM {view} LIMIT 0").columns)
            sql = f"SELECT {', '.join(names)} FROM {view} ORDER BY ALL"
            found[view] = connection.sql(sql).fetchall()
        return found


def replayed(store: Path, oal: Path, *captures: Path) -> None:
    named = [part for one in captures for part in ("--entities", one / "kubectl.yaml")]
    done = framewalk("replay", *captures, *named, "--store", store, "--oal", oal)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """Half of a file's definitions."""
    definitions = FEW.read_text().split(";")
    path = tmp_path / "half.oal"
    path.write_text(";".join([*definitions[:-1:2], ""]))
    return path


def test_new_definitions_have_values_as_a_replay_gives_them(tmp_path: Path, half: Path) -> None:
    store, whole = tmp_path / "store.duckdb", tmp_path / "whole.duckdb"
    replayed(store, half, BOOKINFO, BOUTIQUE)
    replayed(whole, FEW, BOOKINFO, BOUTIQUE)
    assert rows_of(store) != rows_of(whole)
    asked = ("recompute", "--store", store, "--oal", FEW)
    done = framewalk(*asked, "--captures", BOOKINFO, "--captures", BOUTIQUE)
    assert done.returncode == 0, done.stderr
    assert rows_of(store) == rows_of(whole)
    assert "relations between endpoints are made of an archive" in done.stderr
    assert not list(tmp_path.glob(".store*"))


def test_one_that_was_killed_goes_on_with_what_it_had_read(tmp_path: Path, half: Path) -> None:
    store, whole = tmp_path / "store.duckdb", tmp_path / "whole.duckdb"
    replayed(store, half, BOOKINFO, BOUTIQUE)
    replayed(whole, FEW, BOOKINFO, BOUTIQUE)
    asked = ("recompute", "--store", store, "--oal", FEW)
    asked = (*asked, "--captures", BOOKINFO, "--captures", BOUTIQUE)
    left = tmp_path / ".store.duckdb.captures" / "captures.duckdb"
    read = "SELECT coalesce(sum(count), 0)::BIGINT FROM internal.counters WHERE kind = 'messages'"
    with subprocess.Popen([FRAMEWALK, *asked], stdout=subprocess.DEVNULL) as process:
        # The first capture is one commit, the second follows.
        wait_until(lambda: counted(left, read) or process.poll() is not None)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    before = counted(left, read)
    done = framewalk(*asked)
    assert done.returncode == 0, done.stderr
    assert f"read before\t{before:,} messages\n" in done.stdout
    assert rows_of(store) == rows_of(whole)
    assert not left.parent.exists()
    # What was left of something else is of no use, nor is it where nothing is made.
    left.parent.mkdir()
    left.write_text("something else")
    again = framewalk(*asked)
    assert "read before" not in again.stdout
    assert rows_of(store) == rows_of(whole)
    assert not left.parent.exists()


def counted(store: Path, query: str) -> int:
    """Ask a store that another process may be writing, as far as it can be read."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / store.name
        try:
            shutil.copy(store, copy)
            with suppress(FileNotFoundError):
                shutil.copy(f"{store}.wal", f"{copy}.wal")
            with duckdb.connect(str(copy)) as connection:
                return int(connection.sql(query).fetchall()[0][0])
        except (OSError, duckdb.Error):
            return 0


def test_minutes_that_are_not_asked_for_keep_what_they_have(tmp_path: Path, half: Path) -> None:
    store, mine = tmp_path / "store.duckdb", tmp_path / "mine.oal"
    replayed(store, half, BOOKINFO)
    mine.write_text(CALLS)
    asked = ("recompute", "--store", store, "--oal", mine, "--captures", BOOKINFO)
    span = ("--from", "2026-11-02T09:01", "--to", "2026-11-02T09:02")
    done = framewalk(*asked, "--metric", "my_calls", *span)
    assert done.stdout.startswith("metrics\t1\nminutes\t1\n"), done.stderr
    with duckdb.connect(str(store), read_only=True) as connection:
        sql = "SELECT DISTINCT time_bucket::VARCHAR FROM service_minute WHERE my_calls IS NOT NULL"
        assert connection.sql(sql).fetchall() == [("2026-11-02 09:01:00",)]


def test_a_changed_meaning_is_made_of_captures(tmp_path: Path) -> None:
    store, mine = tmp_path / "store.duckdb", tmp_path / "mine.oal"
    mine.write_text(CALLS)
    replayed(store, mine, BOOKINFO)
    mine.write_text(CALLS.replace("connect", "accept"))
    asked = ("recompute", "--store", store, "--oal", mine)
    # Where captures are not what was counted the store does not even get the meaning.
    refused = framewalk(*asked, "--captures", BOUTIQUE)
    assert "these captures are not what it has counted" in refused.stderr
    with duckdb.connect(str(store), read_only=True) as connection:
        assert connection.sql("FROM former_meanings").fetchall() == []
    done = framewalk(*asked, "--captures", BOOKINFO)
    assert done.returncode == 0, done.stderr
    other = tmp_path / "other.duckdb"
    replayed(other, mine, BOOKINFO)
    assert rows_of(store) == rows_of(other)
    with duckdb.connect(str(store), read_only=True) as connection:
        assert connection.sql("FROM former_meanings").fetchall() == []


def test_captures_that_are_not_all_that_was_counted_are_refused(tmp_path: Path, half: Path) -> None:
    store, known = tmp_path / "store.duckdb", tmp_path / "known"
    known.mkdir()
    whole, cut = (known / f"{name}.capture.arrows" for name in ("whole", "cut"))
    shutil.copy(BOOKINFO / "bookinfo.capture.arrows", whole)
    with CaptureReader(whole) as reader, CaptureWriter(cut) as writer:
        batches = [batch.messages for batch in reader]
        for batch in batches[: len(batches) // 2]:
            writer.write(batch)
    assert len(batches) > 1
    named = ("--entities", BOOKINFO / "kubectl.yaml", "--oal", half, "--store", store)
    framewalk("replay", whole, *named)
    before = rows_of(store)
    asked = ("recompute", "--store", store, "--oal", half, "--captures")
    less = framewalk(*asked, cut)
    assert f"it has counted more of {cut} than there is" in less.stderr
    framewalk("replay", BOUTIQUE, *named[2:], "--entities", BOUTIQUE / "kubectl.yaml")
    both = rows_of(store)
    assert both != before
    one = framewalk(*asked, whole)
    assert "boutique.capture.arrows, too; name all captures" in one.stderr
    assert {one.returncode, less.returncode} == {1}
    assert rows_of(store) == both
    # A server forgets segments of its spool that it has counted.
    with Store(store, load_plan(half)) as opened:
        opened.forget([2])
    gone = framewalk(*asked, whole)
    assert "it does not know any more; name all captures" in gone.stderr


def test_logs_that_counted_otherwise_then_are_refused(tmp_path: Path, half: Path) -> None:
    store = tmp_path / "store.duckdb"
    named = ("--entities", BOOKINFO / "kubectl.yaml", "--oal", half, "--store", store)
    framewalk("replay", BOOKINFO, *named, "--max-entities-per-stream", "3")
    before = rows_of(store)
    done = framewalk("recompute", "--store", store, "--oal", half, "--captures", BOOKINFO)
    assert done.returncode == 1
    assert "logs dropped (stream entities), and have 0 now" in done.stderr
    assert rows_of(store) == before
