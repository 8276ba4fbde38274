"""Who reads the archive of a running server in a loop sees each log once, whatever goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from archive_readers import DEFINITIONS, Readers, Sender, eager_environment
from recording import collect, wait_until
from serving import Serve, Serving

pytest_plugins = ["servers"]

MERGED, EXPIRED = "archived files merged", "archived logs expired"
OVER = "oldest archived logs deleted"
OPEN_FILES = 6


def test_readers_see_each_log_once(serve: Serve, tmp_path: Path) -> None:
    check_readers(serve, tmp_path, times=2)


@pytest.mark.long
def test_readers_see_each_log_once_through_many_commits(serve: Serve, tmp_path: Path) -> None:
    check_readers(serve, tmp_path, times=6)


def check_readers(serve: Serve, folder: Path, times: int) -> None:
    """Read while a server merges and expires so many times; then it is another.

    That one has a budget that is used up.
    """
    definitions = folder / "few.oal"
    definitions.write_text(DEFINITIONS, encoding="utf-8")
    environment = {
        "FRAMEWALK_OAL_PATHS": str(definitions),
        "FRAMEWALK_ARCHIVE_MODE": "all",
        "FRAMEWALK_ARCHIVE_DIRECTORY": str(folder / "logs"),
        "FRAMEWALK_LOG_LEVEL": "debug",
        "FRAMEWALK_SQL": "default",
        "SW_CORE_RECORD_DATA_TTL": "1",
    } | eager_environment(folder / "eager", OPEN_FILES)
    servers = [serve(**environment)]
    sender = Sender()

    def send_until(*events: str) -> None:
        """Send stream by stream until the newest server told of each so many times.

        And until each reader has had as many answers meanwhile.
        """
        server, before, answers = servers[-1], sender.messages, readers.answers.copy()
        while any(times_told(server, event) < times for event in events) or not readers.have_more(
            answers, times
        ):
            # One after the other: each is a commit.
            collect(server.address, sender.stream())
            server.wait_until_stored(sender.messages - before)
            readers.check()

    with Readers(lambda: servers[-1]) as readers:
        send_until(MERGED, EXPIRED)
        assert servers[-1].stop() == 0
        size_bytes = sum(path.stat().st_size for path in (folder / "logs").rglob("*.parquet"))
        budget = {"FRAMEWALK_ARCHIVE_BUDGET_BYTES": str(size_bytes)}
        servers.append(serve(**environment | budget))
        send_until(MERGED, OVER)
        counts = readers.answers.copy()
        wait_until(lambda: readers.have_ended() or readers.have_more(counts, 2))
    assert readers.seen
    assert readers.gone
    assert readers.seen <= sender.sent
    assert servers[-1].stop() == 0


def times_told(server: Serving, event: str) -> int:
    return sum(event in line for line in list(server.lines))
