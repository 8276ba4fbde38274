"""`framewalk serve`: metrics while it receives, counted once, whatever happens."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from comparison import Values, differences, read_views
from crashing import SAMPLED, crash, crash_attacked
from deadly import upkeep_environment
from recording import DEADLINE_S, FRAMEWALK, Server, collect, recorded, stream, wait_until
from serving import BOOKINFO, FEW, Serve, Serving, is_alive, part_of_bookinfo, send

from framewalk.engine import Store, load_plan, read_entities, replay
from framewalk.engine.captures.format import captures_in
from framewalk.engine.captures.growing import segments_in
from framewalk.engine.oal.plan import Plan

DUMP = BOOKINFO / "kubectl.yaml"
ALL_MESSAGES = 12_875
# What most tests send.
PART = part_of_bookinfo()
MESSAGES = sum(map(len, recorded(PART)))

pytest_plugins = ["servers"]


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


@pytest.fixture(scope="session")
def replayed(plan: Plan) -> Values:
    """What a replay makes of the part."""
    return values_of_a_replay(PART, plan)


def values_of_a_replay(capture: Path, plan: Plan) -> Values:
    with Store(":memory:", plan) as store:
        replay([capture], read_entities(DUMP), store)
        return read_views(store)


def stored(server: Serving, plan: Plan) -> Values:
    with Store(server.store, plan) as store:
        return read_views(store)


def test_the_views_of_all_that_is_shipped_equal_those_of_a_replay(serve: Serve) -> None:
    server = serve("--entities", DUMP, FRAMEWALK_OAL_PATHS="")
    send(server, BOOKINFO)
    server.wait_until_stored(ALL_MESSAGES)
    assert server.stop() == 0
    plan = load_plan()
    assert differences(stored(server, plan), values_of_a_replay(BOOKINFO, plan)) == []


def test_a_minute_fills_and_late_streams_are_merged_into_it(
    serve: Serve, plan: Plan, replayed: Values
) -> None:
    server = serve("--entities", DUMP, FRAMEWALK_SPOOL_SEGMENT_BYTES="65536")
    streams = recorded(PART)
    sent = 0
    for part in (streams[0::3], streams[1::3], streams[2::3]):
        for one in part:
            collect(server.address, one)
        sent += sum(map(len, part))
        server.wait_until_stored(sent)
    wait_until(lambda: server.metrics()["framewalk_engine_flush_seconds_count"] >= 3)
    assert server.stop() == 0
    assert differences(stored(server, plan), replayed) == []


def test_computing_never_delays_an_answer(serve: Serve, plan: Plan, replayed: Values) -> None:
    server = serve("--entities", DUMP)
    server.wait_for("engine ready")
    os.kill(server.engine(), signal.SIGSTOP)
    send(server, PART)
    assert server.metrics()["k8s_als_in_count"] == MESSAGES
    os.kill(server.engine(), signal.SIGCONT)
    server.wait_until_stored(MESSAGES)
    assert server.stop() == 0
    assert differences(stored(server, plan), replayed) == []


@pytest.mark.parametrize(
    ("capture", "kills"), [(PART, 4), pytest.param(BOOKINFO, 10, marks=pytest.mark.long)]
)
def test_whatever_is_killed_each_message_is_counted_once(
    capture: Path, kills: int, tmp_path: Path
) -> None:
    done = crash(tmp_path, capture, kills, seed=5, FRAMEWALK_OAL_PATHS=str(FEW))
    assert done["streams"] == len(recorded(capture))
    assert done["engine killed"]
    assert done["receiver killed"]


def test_a_server_that_is_killed_while_it_samples_has_each_request_that_stays_once(
    tmp_path: Path,
) -> None:
    """Before the new file is listed, in the transaction that lists it, and after it."""
    places = [("_rewritten", 1), ("note_sampled", 1), ("_replace", 1)]
    _crash_in_upkeep(tmp_path, "_sample", places, **SAMPLED)


def test_an_engine_that_dies_while_it_relates_has_the_relations_of_a_replay(tmp_path: Path) -> None:
    places = [("no_longer_changed", 1), ("insert", 2), ("replace", 1)]
    _crash_in_upkeep(tmp_path, "_relate", places)


def _crash_in_upkeep(
    folder: Path, job: str, places: list[tuple[str, int]], **environment: str
) -> None:
    """Kill one process, and the engine at these places of what it does beside."""
    deaths = folder / "deaths"
    dying = upkeep_environment(folder / "start", deaths, job, places)
    has_died = lambda: deaths.exists() and len(deaths.read_text().splitlines()) == len(places)  # noqa: E731
    paths = {"FRAMEWALK_OAL_PATHS": str(FEW)}
    crash(folder, PART, 1, seed=3, until=has_died, **paths, **environment, **dying)
    assert has_died()


def test_whatever_is_killed_beside_hostile_streams_each_honest_log_is_counted_once(
    tmp_path: Path,
) -> None:
    done = crash_attacked(tmp_path, kills=4, seed=2)
    assert done["hostile streams"]
    assert done["engine killed"]
    assert done["receiver killed"]


def test_an_engine_that_dies_is_started_again(serve: Serve) -> None:
    server = serve("--entities", DUMP)
    server.wait_for("engine ready")
    os.kill(server.engine(), signal.SIGKILL)
    died = server.wait_for("engine died, it is started again")
    assert died["exit_code"] == "-9"
    send(server, PART)
    server.wait_until_stored(MESSAGES)
    assert server.metrics()["framewalk_engine_restarts"] == 1


def test_an_engine_does_not_outlive_its_receiver(serve: Serve) -> None:
    server = serve()
    server.wait_for("engine ready")
    engine = server.engine()
    server.stop(signal.SIGKILL)
    wait_until(lambda: not is_alive(engine))


def test_what_was_recorded_is_computed_at_the_next_start(
    serve: Serve, tmp_path: Path, plan: Plan, replayed: Values
) -> None:
    with Server(tmp_path / "spool") as recorder:
        for one in recorded(PART):
            collect(recorder.address, one)
        recorder.stop(signal.SIGKILL)
    server = serve("--entities", DUMP)
    server.wait_until_stored(MESSAGES)
    assert server.stop() == 0
    again = serve("--entities", DUMP)
    again.wait_for("engine ready")
    assert again.stop() == 0
    assert differences(stored(again, plan), replayed) == []


def test_a_replay_of_the_spool_adds_nothing(serve: Serve, plan: Plan, replayed: Values) -> None:
    server = serve("--entities", DUMP, FRAMEWALK_SPOOL_SEGMENT_BYTES="65536")
    send(server, PART)
    server.wait_until_stored(MESSAGES)
    assert server.stop() == 0
    with Store(server.store, plan) as store:
        summary = replay([server.spool], read_entities(DUMP), store)
        assert summary.counters.messages == 0
        assert differences(read_views(store), replayed) == []


def test_a_spool_that_was_replayed_is_not_counted_again(
    serve: Serve, tmp_path: Path, plan: Plan, replayed: Values
) -> None:
    with Server(tmp_path / "spool", FRAMEWALK_SPOOL_SEGMENT_BYTES="65536") as recorder:
        for one in recorded(PART):
            collect(recorder.address, one)
        recorder.stop()
    copies = tmp_path / "copies"
    copies.mkdir()
    for number, path in enumerate(captures_in(tmp_path / "spool")):
        shutil.copy(path, copies / f"{number:03}.capture.arrows")
    with Store(tmp_path / "metrics.duckdb", plan) as store:
        replay([copies], read_entities(DUMP), store)
    server = serve("--entities", DUMP)
    server.wait_for("engine ready")
    wait_until(lambda: server.metrics()["framewalk_engine_watermark_seconds"])
    assert server.metrics()["framewalk_engine_messages"] == 0
    assert server.stop() == 0
    assert differences(stored(server, plan), replayed) == []


def test_stored_segments_are_deleted_after_their_retention(serve: Serve) -> None:
    server = serve(FRAMEWALK_SPOOL_SEGMENT_BYTES="65536", FRAMEWALK_SPOOL_RETENTION_SECONDS="0")
    send(server, BOOKINFO)
    server.wait_until_stored(ALL_MESSAGES)
    # The last one is still being written.
    wait_until(lambda: len(captures_in(server.spool)) == 1)
    wait_until(lambda: server.metrics()["framewalk_engine_removed_segments"] > 5)


def test_stored_segments_make_room_when_the_budget_is_used_up(serve: Serve) -> None:
    server = serve(FRAMEWALK_SPOOL_SEGMENT_BYTES="65536", FRAMEWALK_SPOOL_BUDGET_BYTES="1000000")
    for one in recorded(BOOKINFO):
        collect(server.address, one)
        wait_until(lambda: server.metrics()["framewalk_spool_bytes"] < 800_000)
    assert sum(path.stat().st_size for path in captures_in(server.spool)) < 900_000
    assert server.metrics()['k8s_als_drop_count{reason="spool"}'] == 0


def test_flipped_bits_are_told_and_the_rest_is_counted(serve: Serve, tmp_path: Path) -> None:
    streams = recorded(PART)
    with Server(tmp_path / "spool") as recorder:
        for one in streams:
            collect(recorder.address, one)
        recorder.stop()
    (path,) = captures_in(tmp_path / "spool")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    server = serve("--entities", DUMP)
    told = server.wait_for("spool segment is damaged")
    assert "torn or damaged; what they held is left out, the rest is kept" in str(told)
    wait_until(server.has_stored_all)
    lost = MESSAGES - server.metrics()["framewalk_engine_messages"]
    assert 0 < lost <= max(map(len, streams))
    damaged = server.metrics()['framewalk_engine_bad_input{kind="damaged_bytes"}']
    assert 0 < damaged < len(content) / 10


def test_dumps_are_read_again_when_they_change(serve: Serve, tmp_path: Path, plan: Plan) -> None:
    dump = tmp_path / "dumps" / "cluster.yaml"
    dump.parent.mkdir()
    dump.write_text("kind: List\nitems:\n- kind: Pod\n  metadata: {name: other}\n")
    server = serve("--entities", dump.parent, FRAMEWALK_ENTITIES_RELOAD_SECONDS="0.1")
    server.wait_for("engine ready")
    shutil.copy(DUMP, dump.with_suffix(".new"))
    dump.with_suffix(".new").rename(dump)
    server.wait_for("entities read again")
    send(server, PART)
    server.wait_until_stored(MESSAGES)
    dump.write_text("kind: List\nitems: broken")
    told = server.wait_for("entities not read, the old ones stay")
    assert str(dump) in told["problem"]
    assert server.stop() == 0
    with Store(server.store, plan) as store:
        names = store.query("SELECT DISTINCT service FROM service_minute").fetchall()
    assert ("productpage.bookinfo",) in names


def test_one_writer_per_spool(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    server.wait_for("engine ready")
    refused = subprocess.run(
        [FRAMEWALK, "serve", "--port", "0", "--spool", server.spool, "--store", tmp_path / "other"],
        env=os.environ | {"SW_TELEMETRY": "none", "FRAMEWALK_SQL": "-"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert refused.returncode == 1
    assert "records into this spool" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert server.find("engine died, it is started again") == {}


def test_what_the_engine_cannot_use_ends_the_server_in_words(serve: Serve, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.oal"
    wrong.write_text("service_cpm = from(K8SService.*).cpmm();\n")
    server = serve(FRAMEWALK_OAL_PATHS=str(wrong))
    assert server.wait() == 1
    assert "wrong.oal:1:" in "".join(server.lines)
    assert "Traceback" not in "".join(server.lines)


def test_status_shows_what_was_received_and_computed(serve: Serve) -> None:
    server = serve("--entities", DUMP)
    send(server, BOOKINFO)
    server.wait_until_stored(ALL_MESSAGES)
    told = server.status()
    assert told["k8s_als_in_count"] == ALL_MESSAGES
    assert told["framewalk_engine_messages"] == ALL_MESSAGES
    assert told["framewalk_engine_logs"] == 46_099
    assert told["framewalk_engine_up"] == 1
    assert 0 <= told["framewalk_engine_lag_seconds"] < DEADLINE_S
    assert told["framewalk_engine_dropped_logs"]["same_service"] == 864
    assert told["framewalk_engine_memory_bytes"] > 10_000_000


def test_messages_that_cannot_be_decoded_cost_themselves(serve: Serve) -> None:
    server = serve()
    collect(server.address, stream("nonsense", messages=7))
    server.wait_until_stored(7)
    assert server.metrics()['framewalk_engine_bad_input{kind="undecodable_message"}'] == 7


def test_a_length_that_overflows_does_not_end_the_engine(serve: Serve) -> None:
    server = serve()
    collect(server.address, [b"\x0a" + b"\xff" * 9 + b"\x01"])
    server.wait_until_stored(1)
    metrics = server.metrics()
    assert metrics['framewalk_engine_bad_input{kind="undecodable_message"}'] == 1
    assert metrics["framewalk_engine_restarts"] == 0


def test_a_store_that_was_deleted_is_told_as_such_and_made_again(serve: Serve) -> None:
    server = serve()
    server.wait_for("engine ready")
    server.store.unlink()
    told = server.wait_for("engine died, it is started again")["error"]
    assert told.startswith(f"{server.store}: no such file or directory; check that it is there")
    assert server.find("this is a bug in framewalk") == {}
    collect(server.address, stream("nonsense", messages=7))
    server.wait_until_stored(7)
    assert server.store.exists()


def test_a_segment_that_is_unreadable_for_a_while_is_not_forgotten(
    serve: Serve, tmp_path: Path
) -> None:
    with Server(tmp_path / "spool") as recorder:
        collect(recorder.address, stream("nonsense", messages=7))
        recorder.stop()
    (path,) = segments_in(tmp_path / "spool")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "nowhere")
    server = serve()
    told = server.wait_for("spool segment cannot be read, it is tried again")
    assert str(path) in told["problem"]
    wait_until(lambda: "framewalk_engine_lag_seconds" in server.metrics())
    assert server.metrics()["framewalk_engine_watermark_seconds"] == 0
    (tmp_path / "elsewhere").rename(tmp_path / "nowhere")
    server.wait_until_stored(7)
    wait_until(lambda: server.metrics()["framewalk_engine_watermark_seconds"])
    assert "".join(server.lines).count("spool segment cannot be read") == 1


def test_a_dump_that_is_a_pipe_is_refused(serve: Serve, tmp_path: Path) -> None:
    dump = tmp_path / "dumps" / "cluster.yaml"
    dump.parent.mkdir()
    os.mkfifo(dump)
    refused = serve("--entities", dump.parent)
    assert refused.wait() == 1
    assert f"{dump}: this is no regular file" in "".join(refused.lines)
    dump.unlink()
    shutil.copy(DUMP, dump)
    server = serve("--entities", dump.parent, FRAMEWALK_ENTITIES_RELOAD_SECONDS="0.1")
    server.wait_for("engine ready")
    dump.unlink()
    os.mkfifo(dump)
    told = server.wait_for("entities not read, the old ones stay")
    assert f"{dump}: this is no regular file" in told["problem"]
    dump.unlink()
    shutil.copy(DUMP, dump)
    server.wait_for("entities read again")


def test_a_dump_that_cannot_be_read_to_its_end_does_not_hold_up_the_stop(
    serve: Serve, tmp_path: Path
) -> None:
    dump = tmp_path / "dumps" / "cluster.yaml"
    dump.parent.mkdir()
    shutil.copy(DUMP, dump)
    server = serve("--entities", dump.parent, FRAMEWALK_ENTITIES_RELOAD_SECONDS="0.1")
    server.wait_for("engine ready")
    # Who opens a file waits for the one who has a lease on it, here for as long as the test.
    wanted = threading.Event()
    before = signal.signal(signal.SIGIO, lambda _number, _frame: wanted.set())
    new = dump.with_suffix(".new")
    shutil.copy(DUMP, new)
    descriptor = os.open(new, os.O_RDWR)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        wanted_s = time.monotonic()
        new.rename(dump)
        wait_until(wanted.is_set)
        collect(server.address, stream("nonsense", messages=7))
        server.wait_until_stored(7)
        assert server.stop() == 0
        # The system ends a lease after this long, and then the file can be opened.
        longest_s = int(Path("/proc/sys/fs/lease-break-time").read_text(encoding="ascii"))
        assert time.monotonic() - wanted_s < longest_s
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGIO, before)
