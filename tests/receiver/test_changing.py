"""A server whose definitions change while it runs, and that makes metrics of before again."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
import yaml
from comparison import Values, differences, read_views
from prepared import framewalk
from recording import collect, recorded, wait_until
from serving import BOOKINFO, FEW, Serve, Serving, send

from framewalk.engine import Store, load_plan, read_entities, replay
from framewalk.engine.archive import Archive, ArchiveOptions, Mode
from framewalk.engine.captures.format import CaptureReader, captures_in
from framewalk.engine.errors import InputError
from framewalk.engine.oal.plan import Plan
from framewalk.engine.remaking import relate
from framewalk.fixtures import GenerateOptions, generate
from framewalk.queries.sql_endpoint import find_server
from framewalk.server.changing import InForce, Pending, Sources, State

DUMP = BOOKINFO / "kubectl.yaml"
OF = 'from(K8SService.*).filter(type == "{}").filter(detectPoint == DetectPoint.{}).count();\n'
OLD = f"my_calls = {OF.format('connect', 'CLIENT')}"
NEW = f"""my_calls = {OF.format("accept", "SERVER").strip()}
my_writes = from(K8SServiceInstance.write.duration).filter(type == "write").longAvg();
my_relation = from(K8SEndpointRelation.http.latency).max();
"""
MINUTES = "SELECT time_bucket, sum(my_calls) FROM service_minute GROUP BY 1 ORDER BY 1"
LONG_AGO = "3650d"
KILLS = 3
OF_THEM = "definitions"

pytest_plugins = ["servers"]


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    """A folder of definitions, of which `mine.oal` is to be edited."""
    folder = tmp_path / OF_THEM
    folder.mkdir()
    (folder / "few.oal").write_text(FEW.read_text())
    (folder / "mine.oal").write_text(OLD)
    return folder


def archiving(serve: Serve, definitions: Path, dump: Path = DUMP) -> Serving:
    (folder,) = (one.parent for one in (definitions, *definitions.parents) if one.name == OF_THEM)
    server = serve(
        "--entities",
        dump,
        FRAMEWALK_OAL_PATHS=str(definitions),
        FRAMEWALK_SQL="default",
        FRAMEWALK_SPOOL_FSYNC="never",
        FRAMEWALK_ARCHIVE_MODE="all",
        FRAMEWALK_ARCHIVE_DIRECTORY=str(folder / "archive"),
    )
    server.wait_for("engine ready")
    return server


def replayed(folder: Path, plan: Plan, capture: Path, dump: Path = DUMP) -> Values:
    with (
        Store(":memory:", plan) as store,
        Archive(store, folder, ArchiveOptions(Mode.ALL)) as archive,
    ):
        replay([capture], read_entities(dump), store, archive=archive)
        relate(store, archive)
        return read_views(store)


def stored(server: Serving, plan: Plan) -> Values:
    """What a server has stored, once it has put the last calls together."""
    folder = server.store.with_name("archive")
    with (
        Store(server.store, plan) as store,
        Archive(store, folder, ArchiveOptions(Mode.ALL)) as archive,
    ):
        relate(store, archive)
        return read_views(store)


def of_minutes(store: Store) -> list[object]:
    return store.query(MINUTES).fetchall()


def in_order(capture: Path) -> list[list[bytes]]:
    """Return the messages of each stream, in the order in which streams came."""
    (path,) = captures_in(capture)
    with CaptureReader(path) as reader:
        messages = pl.concat(pl.DataFrame(batch.messages) for batch in reader)
    streams = (
        messages.sort("stream", "seq")
        .group_by("stream", maintain_order=True)
        .agg("message", pl.col("received_at").min())
    )
    return streams.sort("received_at", "stream")["message"].to_list()


def asked(server: Serving, query: str) -> list[tuple[object, ...]]:
    """Ask a server, which may be changing its engine."""
    answers: list[list[tuple[object, ...]]] = []

    def comes() -> bool:
        found = find_server(server.store, None)
        with suppress(InputError):
            answers.extend([found.ask(query).rows] if found is not None else [])
        return bool(answers)

    wait_until(comes)
    return answers[-1]


def wait_until_counted(server: Serving, messages: int) -> None:
    counted = "SELECT sum(count)::BIGINT FROM internal.counters WHERE kind = 'messages'"
    wait_until(lambda: asked(server, counted) == [(messages,)])


def test_an_edit_under_load_is_taken_from_the_next_minute_on(
    serve: Serve, tmp_path: Path, definitions: Path
) -> None:
    """What was before is of the old meaning, until it is made again; nothing is lost."""
    old = load_plan([definitions])
    server = archiving(serve, definitions)
    streams = in_order(BOOKINFO)
    half, taken = len(streams) // 2, threading.Event()

    def send_all() -> None:
        for number, one in enumerate(streams):
            if number == half:
                wait_until_counted(server, sum(map(len, streams[:half])))
                (definitions / "mine.oal").write_text(NEW)
                server.process.send_signal(signal.SIGHUP)
            if number == half + 5:
                # What comes while engines change is kept, and computed by the next.
                taken.wait()
            collect(server.address, one)

    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(send_all)
        try:
            told = server.wait_for("definitions are taken, the engine is started again with them")
        finally:
            taken.set()
        sending.result()
    assert told["new"] == "my_relation, my_writes"
    assert told["another_meaning"] == "my_calls"
    wait_until_counted(server, sum(map(len, streams)))
    new = load_plan([definitions])
    with Store(":memory:", old) as before, Store(":memory:", new) as after:
        for store in (before, after):
            replay([BOOKINFO], read_entities(DUMP), store)
        rows = [of_minutes(store) for store in (before, after)]
    ((until,),) = asked(server, "SELECT until FROM former_meanings WHERE name = 'my_calls'")
    parts = [row for row in rows[0] if row[0] < until], [row for row in rows[1] if row[0] >= until]
    assert all(parts)
    assert asked(server, MINUTES) == [*parts[0], *parts[1]] != rows[0]
    assert asked(server, "SELECT DISTINCT my_calls FROM service_hour") == [(None,)]
    writes = "SELECT min(time_bucket) FROM service_instance_minute WHERE my_writes IS NOT NULL"
    assert asked(server, writes)[0][0] >= until
    done = framewalk("recompute", "--store", server.store)
    assert done.returncode == 0, done.stderr
    assert asked(server, "FROM former_meanings") == []
    assert server.find("engine died, it is started again") == {}
    assert server.metrics()["framewalk_engine_restarts"] == 0
    assert server.stop() == 0
    wanted = replayed(tmp_path / "again", new, BOOKINFO)
    assert differences(stored(server, new), wanted) == []


def test_an_engine_that_is_killed_while_metrics_are_made_again_counts_each_log_once(
    serve: Serve, tmp_path: Path, definitions: Path
) -> None:
    """Of hours that are made one after the other, relations of endpoints included."""
    capture, dump = tmp_path / "capture", tmp_path / "dump.yaml"
    capture.mkdir()
    begins = GenerateOptions("bookinfo").start.replace(hour=8, minute=58)
    options = GenerateOptions("bookinfo", duration_s=3_780, requests_per_second=0.1, start=begins)
    generate(options, capture / "made.capture.arrows", dump)
    server = archiving(serve, definitions, dump)
    send(server, capture)
    wait_until_counted(server, sum(map(len, recorded(capture))))
    (definitions / "mine.oal").write_text(NEW)
    before = asked(server, MINUTES)
    with ThreadPoolExecutor(1) as threads:
        command = ("definitions", "apply", definitions, "--recompute", LONG_AGO)
        applying = threads.submit(framewalk, *command, "--store", server.store)
        kills = 0
        for _ in range(KILLS):
            state = wait_for_state(server, applying)
            if state is not State.MAKING:
                break
            os.kill(server.engine(), signal.SIGKILL)
            kills += 1
            wait_until(lambda: server.metrics()["framewalk_engine_restarts"] >= kills)  # noqa: B023
        done = applying.result()
    assert kills
    assert done.returncode == 0, done.stderr
    assert asked(server, MINUTES) != before
    assert asked(server, "FROM former_meanings") == []
    assert server.stop() == 0
    new = load_plan([definitions])
    wanted = replayed(tmp_path / "again", new, capture, dump)
    assert differences(stored(server, new), wanted) == []


def test_a_server_names_logs_again_that_had_no_name_when_they_came(
    serve: Serve, tmp_path: Path, definitions: Path
) -> None:
    """As if its dump had been whole from the beginning: metrics, logs and unknown peers."""
    # Each log of this Service has a name at its other side, so none was dropped.
    dump = tmp_path / "dump.yaml"
    items = yaml.safe_load(DUMP.read_text())
    known = [one for one in items["items"] if not one["metadata"]["name"].startswith("kube-dns")]
    dump.write_text(yaml.safe_dump(items | {"items": known}))
    server = archiving(serve, definitions, dump)
    send(server, BOOKINFO)
    wait_until_counted(server, sum(map(len, recorded(BOOKINFO))))
    named = "SELECT count(*) FROM connection_logs WHERE 'kube-dns.kube-system' IN ("
    ((before,),) = asked(server, f"{named}local_service, remote_service)")
    command = ("recompute", "--store", server.store)
    refused = framewalk(*command, "--entities", DUMP)
    assert "have it read the dump, then ask with --resolve alone" in refused.stderr
    one = framewalk(*command, "--resolve", "--metric", "my_calls")
    assert "names that are resolved again are those of all metrics" in one.stderr
    assert {refused.returncode, one.returncode} == {1}
    dump.with_suffix(".new").write_text(DUMP.read_text())
    dump.with_suffix(".new").replace(dump)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("entities read again")
    done = framewalk(*command, "--resolve")
    assert done.returncode == 0, done.stderr
    assert "logs named\t0\n" not in done.stdout
    assert asked(server, f"{named}local_service, remote_service)") > [(before,)]
    assert server.metrics()["framewalk_engine_restarts"] == 0
    assert server.stop() == 0
    plan = load_plan([definitions])
    wanted = replayed(tmp_path / "again", plan, BOOKINFO)
    assert differences(stored(server, plan), wanted) == []


def wait_for_state(server: Serving, applying: Future[object]) -> State | None:
    """Return how far a request has come, once some minutes are made, or all."""
    path = server.store.with_name("metrics.duckdb.answered.json")
    seen: list[State] = []

    def is_making() -> bool:
        with suppress(OSError, ValueError):
            found = json.loads(path.read_bytes())
            if found["state"] == State.DONE or (
                found["done"] and server.metrics().get("framewalk_engine_up")
            ):
                seen.append(State(found["state"]))
        return bool(seen) or applying.done()

    wait_until(is_making)
    return seen[-1] if seen else None


def test_definitions_with_an_error_are_refused_as_a_whole(serve: Serve, definitions: Path) -> None:
    server = archiving(serve, definitions)
    streams = recorded(BOOKINFO)[:40]
    for one in streams:
        collect(server.address, one)
    wait_until_counted(server, sum(map(len, streams)))
    mine = definitions / "mine.oal"
    mine.write_text(f"{NEW}wrong = from(K8SService.*).cpmm();\n")
    server.process.send_signal(signal.SIGHUP)
    told = server.wait_for("definitions not taken, the old ones stay")
    assert f"{mine}:4:" in told["problem"]
    # One that is started again has the old ones, too.
    os.kill(server.engine(), signal.SIGKILL)
    wait_until(lambda: server.metrics()["framewalk_engine_restarts"] == 1)
    known = "SELECT name FROM metrics WHERE name LIKE 'my_%'"
    assert asked(server, known) == [("my_calls",)]
    command = ("definitions", "apply", definitions, "--store", server.store)
    refused = framewalk(*command)
    assert refused.returncode == 1
    assert f"{mine}:4:" in refused.stderr
    assert "Traceback" not in refused.stderr
    mine.write_text(NEW)
    (definitions / "few.oal").write_text("disable(kubernetes_service_apdex);\n" + FEW.read_text())
    told_first = framewalk(*command, "--dry-run").stdout.splitlines()
    assert told_first[:4] == [
        "new\tmy_relation",
        "new\tmy_writes",
        "another meaning\tmy_calls",
        "gone\tkubernetes_service_apdex",
    ]
    assert asked(server, known) == [("my_calls",)]
    done = framewalk(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [*told_first, "definitions\tin force"]
    assert len(asked(server, known)) == 3
    again = framewalk(*command)
    assert again.stdout.splitlines()[0].startswith("unchanged\t")
    wrong = framewalk("recompute", "--store", server.store, "--metric", "my_call")
    assert "my_call: this server computes no such metric; did you mean my_calls?" in wrong.stderr
    other = framewalk("recompute", "--store", server.store, "--oal", definitions)
    assert "a server has this store open, with definitions" in other.stderr
    assert server.stop() == 0
    gone = framewalk(*command)
    assert "no running server has this store open" in gone.stderr


def test_what_was_applied_stays_in_force_until_the_configuration_names_others(
    serve: Serve, tmp_path: Path, definitions: Path
) -> None:
    server = archiving(serve, definitions)
    other = tmp_path / "other.oal"
    other.write_text(OLD.replace("my_calls", "others"))
    done = framewalk("definitions", "apply", other, "--store", server.store)
    assert done.returncode == 0, done.stderr
    assert server.stop() == 0
    again = archiving(serve, definitions)
    told = again.wait_for("definitions are those that were applied")
    assert told["definitions"] == str(other)
    other.write_text(OLD.replace("my_calls", "yet_others"))
    again.process.send_signal(signal.SIGHUP)
    again.wait_for("definitions are taken, the engine is started again with them")
    wait_until(lambda: ("yet_others",) in asked(again, "SELECT name FROM metrics"))
    assert again.stop() == 0
    third = archiving(serve, definitions / "mine.oal")
    assert third.find("definitions are those that were applied") == {}


DAMAGED = "definitions that are in force are damaged, they are read again where they were"


def kept_files(store: Path) -> dict[str, Path]:
    folder = store.with_name(store.name + ".definitions")
    return {one.name: one for one in folder.rglob("*") if one.is_file()}


def test_an_engine_whose_definitions_were_damaged_starts_again(
    serve: Serve, tmp_path: Path, definitions: Path
) -> None:
    server = archiving(serve, definitions)
    other = tmp_path / "other.oal"
    other.write_text(OLD.replace("my_calls", "others"))
    applied = framewalk("definitions", "apply", other, "--store", server.store)
    assert applied.returncode == 0, applied.stderr
    damaged = kept_files(server.store)["definitions.oal"]
    damaged.write_text("others = from(K8SServ")
    os.kill(server.engine(), signal.SIGKILL)
    told = server.wait_for(DAMAGED)
    assert told["file"] == str(damaged)
    wait_until(server.has_stored_all)
    assert server.metrics()["framewalk_engine_restarts"] == 1
    assert known_names(server) == ["others"]
    assert kept_files(server.store)["definitions.oal"].read_text().startswith("others")
    assert not damaged.exists()
    assert server.stop() == 0


def known_names(server: Serving) -> list[object]:
    rows = asked(server, "SELECT name FROM metrics WHERE name = 'others'")
    return [name for (name,) in rows]


def cut(path: Path) -> None:
    """Leave definitions that are right, but not all."""
    path.write_text(path.read_text().split(";", 1)[0] + ";")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("definitions.oal", cut),
        ("definitions.oal", lambda path: path.write_bytes(b"")),
        ("definitions.oal", lambda path: path.write_bytes(b"\xff\x00" * 99)),
        ("definitions.oal", Path.unlink),
        ("apdex-thresholds.yml", lambda path: path.write_text("default: [")),
        ("apdex-thresholds.yml", Path.unlink),
    ],
)
def test_definitions_that_are_kept_and_damaged_are_read_again(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: Callable[[Path], object],
) -> None:
    """From where they were applied; where that is gone too, from where they are configured."""
    store, mine, other = (tmp_path / one for one in ("metrics.duckdb", "mine.oal", "other.oal"))
    configured, applied = Sources((mine,)), Sources((other,))
    mine.write_text(OLD)
    other.write_text(OLD.replace("my_calls", "others") + OLD.replace("my_calls", "more"))
    asking = Pending("asked", ("others",))
    InForce(store, configured, is_restart=False).take(applied, applied.plan(), asking)
    path = kept_files(store)[name]
    damage(path)
    again = InForce(store, configured, is_restart=True)
    assert named(again) == ["others", "more"]
    assert (again.pending, again.lost, again.has_changed) == (asking, None, True)
    assert [facts(one) for one in caplog.records if one.message == DAMAGED] == [str(path)]
    caplog.clear()
    # It is kept anew: the next has nothing to tell.
    assert named(InForce(store, configured, is_restart=True)) == ["others", "more"]
    assert not caplog.records
    damage(kept_files(store)[name])
    other.unlink()
    lost = InForce(store, configured, is_restart=True)
    assert named(lost) == ["my_calls"]
    assert (lost.pending, lost.lost, lost.sources) == (None, asking, configured)


def test_what_was_applied_is_kept_where_its_files_are_gone_or_its_note_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, mine, other = (tmp_path / one for one in ("metrics.duckdb", "mine.oal", "other.oal"))
    configured, applied = Sources((mine,)), Sources((other,))
    mine.write_text(OLD)
    other.write_text(OLD.replace("my_calls", "others"))
    InForce(store, configured, is_restart=False).take(applied, applied.plan(), Pending(""))
    other.write_text("others = from(K8SServ")
    started = InForce(store, configured, is_restart=False)
    assert (named(started), started.sources, started.has_changed) == (["others"], applied, False)
    assert "cannot be read, they stay" in caplog.text
    note = kept_files(store)["state.json"]
    note.write_bytes(note.read_bytes()[:-9])
    assert named(InForce(store, configured, is_restart=True)) == ["my_calls"]
    assert [facts(one) for one in caplog.records if one.message == DAMAGED] == [str(note)]


def named(in_force: InForce) -> list[str]:
    return [metric.name for metric in in_force.plan.metrics]


def facts(record: logging.LogRecord) -> str:
    return str(vars(record)["facts"]["file"])
