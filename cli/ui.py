"""`framewalk ui`: the page over a store at rest, or where the running server has it."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from framewalk.cli.sources import (
    DEFAULT_STORE,
    Asked,
    CaOption,
    CertificateOption,
    KeyOption,
    ServerOption,
    StoreOption,
    TokenOption,
    open_store_connection,
)
from framewalk.engine.processes import StopSignals

_PAGE: Final = "/ui/"
_MOST_ROWS: Final = 1_000_000
_TIMEOUT_S: Final = 30.0


def ui(
    context: typer.Context,
    store: StoreOption = DEFAULT_STORE,
    port: Annotated[
        int,
        typer.Option(
            "--port",
            "-p",
            min=0,
            max=65_535,
            metavar="PORT",
            help="Listen on this port of 127.0.0.1; 0 takes a free one.",
        ),
    ] = 0,
    server: ServerOption = None,
    token: TokenOption = None,
    tls_ca: CaOption = None,
    tls_certificate: CertificateOption = None,
    tls_key: KeyOption = None,
    panels: Annotated[
        list[Path] | None,
        typer.Option(
            "--panels",
            metavar="PATH",
            help="A file or folder with dashboards (docs/panels.md); give it again for more. "
            "Default: those that ship with framewalk.",
            show_default=False,
        ),
    ] = None,
    *,
    edits: Annotated[
        bool,
        typer.Option(
            "--edit",
            envvar="SW_ENABLE_UPDATE_UI_TEMPLATE",
            help="Let dashboards be edited; what is changed is kept in STORE.dashboards.json.",
        ),
    ] = False,
    opens: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Look at a store in a browser: the map, services, edges, endpoints, dashboards, and SQL.

    A store at rest is opened to be read only, and served on this machine until Ctrl-C. Where a
    server has it open, its address is printed: it serves the page, too.
    """
    asked = Asked(context, store, server, token, tls_ca, tls_certificate, tls_key)
    running = asked.find_server()
    if running is not None:
        _show(f"{running.url.rstrip('/')}{_PAGE}", opens=opens)
        return
    _serve(store, port, token, (tuple(panels or ()), edits), opens=opens)


def _serve(
    store: Path,
    port: int,
    token: str | None,
    dashboards: tuple[tuple[Path, ...], bool],
    *,
    opens: bool,
) -> None:
    # Here, so that no other command waits until a web server is loaded.
    from framewalk.queries.graphql import GraphqlOptions, edits_beside  # noqa: PLC0415
    from framewalk.queries.protocols import Protocols, served  # noqa: PLC0415
    from framewalk.queries.reading import secure  # noqa: PLC0415
    from framewalk.queries.sql_endpoint import SqlOptions  # noqa: PLC0415

    shared: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "token": token,
        "ssl_context": None,
        "timeout_s": _TIMEOUT_S,
        "answers_pages": True,
    }
    paths, keeps_edits = dashboards
    protocols = Protocols(
        sql=SqlOptions(**shared, max_rows=_MOST_ROWS, is_announced=False),
        graphql=GraphqlOptions(
            **shared,
            template_paths=paths,
            template_edits=edits_beside(store),
            keeps_edits=keeps_edits,
        ),
        has_one_port=True,
    )
    with open_store_connection(store) as connection:
        secure(connection)
        signals = StopSignals()
        with served(connection, store, protocols) as found:
            _show(f"http://127.0.0.1:{found.ports['SQL']}{_PAGE}", opens=opens)
            signals.wait()


def _show(address: str, *, opens: bool) -> None:
    # At once, also into a pipe: somebody waits for it.
    typer.echo(address)
    sys.stdout.flush()
    if opens:
        webbrowser.open(address)
