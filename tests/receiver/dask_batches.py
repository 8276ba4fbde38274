"""Replays on a Dask cluster, one after the other, while its processes are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from comparison import differences, read_views
from dask_cluster import made_certificate, started
from processes import children_of, end_with_children, free_port
from recording import FRAMEWALK, wait_until

from framewalk.engine import Store, load_plan, read_entities, replay
from framewalk.engine.captures import captures_in
from framewalk.engine.oal import make_plan

BOOKINFO = Path(__file__).parent.parent.parent / "fixtures" / "captures" / "bookinfo"
VICTIMS = ("scheduler", "nanny", "worker")


class Batches:
    """A scheduler, a nanny and its worker, and a thread that has captures replayed on them.

    A replay that finds no scheduler any more is begun again, into the same store.
    """

    def __init__(self, folder: Path, definitions: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.finished = 0
        self._definitions = definitions
        self._port = free_port()
        self._address = f"tls://127.0.0.1:{self._port}"
        self._certificate, self._key = made_certificate(folder)
        self._scheduler, self._nanny = self._start_scheduler(), self._start_nanny()
        self._replaying: subprocess.Popen[str] | None = None
        self._problem = ""
        self._end = threading.Event()
        self._starting = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def kill(self, name: str) -> bool:
        """Kill one of VICTIMS; false where there is no worker now, which would be disturbed."""
        with self._starting:
            workers = children_of(self._nanny.pid, "spawn_main")
            if workers:
                self._kill(name, workers[0])
            return bool(workers)

    def _kill(self, name: str, worker: int) -> None:
        if name == "worker":
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        elif name == "scheduler":
            self._scheduler.kill()
            self._scheduler.wait()
            self._scheduler = self._start_scheduler()
        else:
            self._nanny.kill()
            self._nanny.wait()
            self._nanny = self._start_nanny()

    def end(self, deadline_s: float) -> None:
        """Have another replay finish that nobody disturbs, and begin no more."""
        finished = self.finished
        wait_until(lambda: self.finished > finished or self._problem, deadline_s)
        self._end.set()
        self._thread.join(deadline_s)

    def close(self) -> None:
        """End what has been started, whatever it does."""
        self._end.set()
        if self._replaying is not None:
            self._replaying.kill()
        self._thread.join()
        end_with_children(self._nanny.pid)
        self._scheduler.kill()
        for one in (self._nanny, self._scheduler):
            one.wait()

    def check(self) -> None:
        """Each replay that has finished is what one process makes."""
        assert not self._problem, self._problem
        with Store(":memory:", load_plan(self._definitions)) as whole:
            replay(captures_in(BOOKINFO), read_entities(BOOKINFO / "kubectl.yaml"), whole)
            wanted = read_views(whole)
        for number in range(self.finished):
            with Store(self._store(number), make_plan(())) as store:
                assert differences(read_views(store), wanted) == [], number

    def _run(self) -> None:
        while not (self._end.is_set() or self._problem):
            self._replay_once()

    def _replay_once(self) -> None:
        store = ["--store", self._store(self.finished), "--oal", self._definitions]
        entities = ["--entities", BOOKINFO / "kubectl.yaml"]
        command = [FRAMEWALK, "replay", BOOKINFO, *entities, *store, *self._scheduler_options]
        self._replaying = subprocess.Popen(
            [*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        told = ""
        while self._replaying.returncode is None:
            with suppress(subprocess.TimeoutExpired):
                _, told = self._replaying.communicate(timeout=1)
            self._keep()
        if self._replaying.returncode == 0:
            self.finished += 1
        elif "scheduler" not in told or "Traceback" in told:
            self._problem = "" if self._end.is_set() else told

    def _keep(self) -> None:
        """Start a nanny again that has lost its scheduler: it ends then."""
        with self._starting:
            if self._nanny.poll() is not None and not self._end.is_set():
                self._nanny = self._start_nanny()

    @property
    def _scheduler_options(self) -> Sequence[str | Path]:
        names = ("--scheduler-ca", "--scheduler-certificate", "--scheduler-key")
        paths = (self._certificate, self._certificate, self._key)
        known = [part for pair in zip(names, paths, strict=True) for part in pair]
        return ["--scheduler", self._address, *known]

    def _store(self, number: int) -> Path:
        return self.folder / f"batch-{number}.duckdb"

    def _start_scheduler(self) -> subprocess.Popen[bytes]:
        options = ("--protocol", "tls", "--host", "127.0.0.1", "--port", self._port)
        return started(self.folder, self._certificate, self._key, "scheduler", *options)

    def _start_nanny(self) -> subprocess.Popen[bytes]:
        options = ("--nthreads", 1, "--local-directory", self.folder)
        own = (self.folder, self._certificate, self._key)
        return started(*own, "worker", self._address, *options)
