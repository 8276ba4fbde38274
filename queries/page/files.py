"""The files of the page, from memory, and what a browser is told with them.

    GET /ui/        the page
    GET /ui/PATH    its modules, styles and what it is made with

They hold nothing of a store, so nobody needs a token for them; the page asks for it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

    from starlette.requests import Request
    from starlette.routing import BaseRoute

PAGE_PATH: Final = "/ui/"

_START: Final = "index.html"
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Scripts and styles come from files of this server, and requests go to it. There is no exception:
# what stands in a page or in an attribute does not run.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Kept, and asked for again each time: a new framewalk is seen at once.
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is sent."""

    content: bytes
    media_type: str
    etag: str


def page_routes() -> list[BaseRoute]:
    """Return what serves the page under `PAGE_PATH`."""
    return [
        Route(PAGE_PATH.rstrip("/"), _to_start, methods=["GET"]),
        Route(f"{PAGE_PATH}{{path:path}}", _file, methods=["GET"]),
    ]


async def _to_start(_request: Request) -> Response:
    # Relative to what a proxy may have put before it.
    return RedirectResponse(PAGE_PATH.strip("/") + "/", HTTPStatus.TEMPORARY_REDIRECT, _HEADERS)


async def _file(request: Request) -> Response:
    found = _files().get(request.path_params["path"] or _START)
    if found is None:
        return PlainTextResponse("there is no such file\n", HTTPStatus.NOT_FOUND, _HEADERS)
    headers = _HEADERS | {"etag": found.etag}
    if found.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(found.content, headers=headers | {"content-type": found.media_type})


@cache
def _files() -> dict[str, _File]:
    return dict(_read(files("framewalk.queries.page") / "web", ""))


def _read(folder: Traversable, prefix: str) -> Iterator[tuple[str, _File]]:
    for entry in folder.iterdir():
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _read(entry, f"{path}/")
        elif (media_type := _TYPES.get(path.rpartition(".")[2])) is not None:
            content = entry.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            yield path, _File(content, media_type, etag)
