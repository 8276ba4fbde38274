"""The body of a request, within bounds of size and time."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

from framewalk.queries.serving.guard import Refusal

if TYPE_CHECKING:
    from starlette.requests import Request


async def read_body(request: Request, most_bytes: int, patience_s: float) -> bytes:
    """Return the whole body of a request; raise Refusal where it is too long, or does not come."""
    try:
        return await asyncio.wait_for(_gather(request, most_bytes), patience_s)
    except TimeoutError as error:
        problem = "the request did not come to its end"
        raise Refusal(HTTPStatus.REQUEST_TIMEOUT, problem, "send it faster") from error


async def _gather(request: Request, most_bytes: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most_bytes:
            problem = f"the request is longer than {most_bytes:,} bytes"
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, problem, "ask a shorter query")
    return bytes(body)
