"""Asking a running server to change something, and waiting for what becomes of it."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from framewalk.cli.console import minute_progress
from framewalk.engine.errors import InputError
from framewalk.queries.sql_endpoint import find_server, read_server_file
from framewalk.server.changing import Request, State, ask, read_answer

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from framewalk.server.changing import Answer

_TICK_S: Final = 0.1
# An engine answers between its looks; one that is started again may have to open a large store.
_SILENCE_S: Final = 600


class Server:
    """A server that has a store open; `exchange` asks it for something and waits for the end."""

    def __init__(self, store: Path, process: int) -> None:
        self._store = store
        self._process = process

    def exchange(self, request: Request, until: Collection[State]) -> Answer:
        """Return the answer once its state is one of these; raises InputError if it is refused."""
        request = replace(request, name=secrets.token_hex(8), pid=self._process)
        ask(self._store, request)
        seen: Answer | None = None
        silent_s = time.monotonic()
        with minute_progress("metrics") as show:
            while True:
                found = read_answer(self._store, request.name)
                if found is not None and found != seen:
                    seen, silent_s = found, time.monotonic()
                    show(found.done, found.minutes)
                    if found.state is State.REFUSED:
                        raise RefusedError(found.problem)
                    if found.state in until:
                        return found
                if time.monotonic() - silent_s > _SILENCE_S:
                    problem = f"the server has told nothing for {_SILENCE_S} s"
                    raise InputError(self._store, problem, "see its log; what it took goes on")
                time.sleep(_TICK_S)


class RefusedError(InputError):
    """What the server says about what it does not do, as it says it."""

    def __init__(self, text: str) -> None:
        super().__init__("server", text, "mend it, and ask again")
        self.text = text

    def __str__(self) -> str:
        """Return its words."""
        return self.text


def running_server(store: Path) -> Server | None:
    """Return the server that has a store open, if it answers SQL; another cannot be found."""
    found = read_server_file(store)
    if found is None or find_server(store, None) is None:
        return None
    return Server(store, found.pid)
