"""Log lines: one fact a line, for people or as JSON for programs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

_LOG: Final = logging.getLogger("framewalk.receiver")
_ROOT: Final = "framewalk"


def start_logging(style: str, level: str) -> None:
    """Write lines of `level` and above to standard error, as "text" or as "json"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text())
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, number), force=True)
    logging.getLogger(_ROOT).setLevel(number)


def tell(level: int, event: str, **facts: object) -> None:
    """Write a line: what happened, and its facts."""
    _LOG.log(level, event, extra={"facts": facts})


class _Text(logging.Formatter):
    """A line for people: time, level, event, facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        facts = [f"{name}={_quoted(value)}" for name, value in _facts(record).items()]
        event = record.getMessage().replace("\n", " ")
        return " ".join([_time(record), f"{record.levelname:<7}", event, *facts])


class _Json(logging.Formatter):
    """A line for programs."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said = {"time": _time(record), "level": record.levelname, "event": record.getMessage()}
        return json.dumps(said | _facts(record), ensure_ascii=False)


def _facts(line: logging.LogRecord) -> dict[str, str]:
    facts = {name: str(value) for name, value in getattr(line, "facts", {}).items()}
    if line.exc_info and line.exc_info[1] is not None:
        facts["error"] = repr(line.exc_info[1])
    return facts


def _time(line: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(line.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quoted(text: str) -> str:
    plain = text and not any(one.isspace() or one in "\"'=" for one in text)
    return text if plain else json.dumps(text, ensure_ascii=False)
