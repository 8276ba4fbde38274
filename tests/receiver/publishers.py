"""Running servers that publish to one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import polars as pl
from serving import Serve, Serving

from framewalk.engine.sharing import SharedTable


@contextmanager
def publishers(
    folder: Path, dump: Path, own: Callable[[Path], Mapping[str, str]] = lambda _: {}
) -> Iterator[Serve]:
    """Start servers, each in a folder of its name, which publish to the table of a folder.

    `own` returns more variables for a server's folder.
    """
    with ExitStack() as servers:

        def start_one(name: str, *arguments: str | Path, **environment: str) -> Serving:
            place = folder / name
            place.mkdir(exist_ok=True)
            options = ("--entities", dump, "--publish", folder / "table", *arguments)
            known = {
                "FRAMEWALK_SQL": "-",
                "FRAMEWALK_PUBLISH_INTERVAL_SECONDS": "0.2",
                "FRAMEWALK_PUBLISH_ENGINE_NAME": name,
            }
            more = {**known, **own(place), **environment}
            return servers.enter_context(Serving(place, *options, **more))

        yield start_one


def has_published_all(server: Serving) -> bool:
    """Tell whether all that a server has stored is in the table."""
    told = server.metrics()
    return server.has_stored_all() and told.get("framewalk_publish_pending_commits") == 0


def reached(uri: str, name: str) -> int:
    """Return the last commit of an engine that a table has."""
    table = SharedTable(uri)
    assert table.open()
    frames = [rows for file in table.files() for rows in table.rows(file)]
    commits = pl.concat(frames).filter(label=name)["commit"]
    return int(commits.max())  # type: ignore[arg-type]
