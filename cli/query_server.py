"""`framewalk query-server`: a store that nobody writes, in every query protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framewalk.cli.serve import settings_of
from framewalk.cli.sources import DEFAULT_STORE


def query_server(
    store: Annotated[
        Path,
        typer.Option(
            "--store",
            "-s",
            metavar="FILE",
            envvar="FRAMEWALK_STORE_PATH",
            help="The DuckDB file that framewalk replay made, or a snapshot. No server writes it.",
        ),
    ] = DEFAULT_STORE,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="A YAML file, laid over the default file. Default: the default file alone; "
            "see `framewalk config show`.",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        str | None,
        typer.Option(
            "--follow",
            metavar="URI",
            envvar="FRAMEWALK_FOLLOW_URI",
            help="Make the store of the Delta table at this path or URI (s3://...), which engines "
            "publish to (`framewalk serve --publish`), and bring it up to date again and again. "
            "Needs framewalk[distributed].",
            show_default=False,
        ),
    ] = None,
    follow_every: Annotated[
        float,
        typer.Option(
            "--follow-every",
            min=0.1,
            metavar="SECONDS",
            help="With --follow: time between two looks at the table.",
        ),
    ] = 5,
    tidy_every: Annotated[
        float,
        typer.Option(
            "--tidy-every",
            min=0,
            metavar="SECONDS",
            help="With --follow: merge the small files of the table and delete its old days this "
            "often; 0 leaves that to another follower. One that does it is enough.",
        ),
    ] = 3600,
    table_days: Annotated[
        int,
        typer.Option(
            "--table-days",
            min=1,
            metavar="DAYS",
            help="With --follow: keep so many days in the table, which a new follower can read.",
        ),
    ] = 8,
    relate_most: Annotated[
        int,
        typer.Option(
            "--relate-most",
            min=1,
            metavar="REQUESTS",
            help="With --follow, where engines publish logs: of a minute with more of them, those "
            "of 65 s on both sides included, relations between endpoints stay as called sides saw "
            "them. Each takes 1.6 kB of memory.",
        ),
    ] = 200_000,
) -> None:
    """Answer queries about a store in SQL, in SkyWalking's GraphQL and in Prometheus' HTTP API.

    It has the ports, the token and the limits that a server has, and reads only; several may read
    one store. With --follow it answers for all engines that publish to one table; several may
    follow it, each into a store of its own. Stop it with Ctrl-C or SIGTERM.
    """
    # Here, so that no other command waits until a server is loaded.
    from framewalk.server.query_server import follow_and_serve, serve_store  # noqa: PLC0415

    if follow is None:
        serve_store(settings_of(config), store)
        return
    from framewalk.server.following import FollowOptions  # noqa: PLC0415

    options = FollowOptions(follow, follow_every, tidy_every, table_days, most_requests=relate_most)
    follow_and_serve(settings_of(config), store, options)
