"""`framewalk status`: what a running server says about itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from framewalk.cli.console import print_summary, stdout
from framewalk.cli.sources import DEFAULT_STORE, StoreOption
from framewalk.engine.errors import InputError
from framewalk.queries.sql_endpoint import server_file

_DEFAULT: Final = "http://127.0.0.1:1234"
_TIMEOUT_S: Final = 10
_REMEDY: Final = "start it with `framewalk serve`, or name its metrics address (--url)"
_NO_METRICS: Final = "start it with SW_TELEMETRY=prometheus"
# What only the metrics of a follower have.
_FOLLOWER: Final = "framewalk_follow_up"
# The samples of a metric with labels: its name, and the values of the label.
_Samples = dict[str, dict[str, float]]


class _Format(StrEnum):
    TEXT = "text"
    JSON = "json"


def status(
    store: StoreOption = DEFAULT_STORE,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            envvar="FRAMEWALK_METRICS_URL",
            metavar="URL",
            help="Where the server's Prometheus metrics are. Default: those of the server that has "
            f"the store open and answers SQL, else {_DEFAULT}.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        _Format,
        typer.Option(
            "--format", "-f", help="How to print: text for people, json with every metric."
        ),
    ] = _Format.TEXT,
) -> None:
    """Show what a running server (serve or record) has received, computed and stored.

    Of one that follows a table (query-server --follow) it shows how far it is. The exit code is 1
    if nobody answers, if the engine of a server is down, or a follower's table away.
    """
    url = url or _url_beside(store)
    samples = _samples(_fetch(url), url)
    if output is _Format.JSON:
        plain = {name: values.get("", values) for name, values in samples.items()}
        typer.echo(json.dumps(plain, indent=2 if stdout.is_terminal else None))
    else:
        print_summary(_followed(samples) if _FOLLOWER in samples else _rows(samples))
    if any(samples.get(name, {}).get("") == 0 for name in ("framewalk_engine_up", _FOLLOWER)):
        raise typer.Exit(1)


def _url_beside(store: Path) -> str:
    """Return the metrics of the server that has a store open, as the file beside it has them."""
    if not server_file(store).exists():
        return _DEFAULT
    from framewalk.queries.sql_endpoint import read_server_file  # noqa: PLC0415

    found = read_server_file(store)
    if found is None:
        return _DEFAULT
    if found.metrics_url is None:
        raise InputError(found.url, "this server serves no metrics", _NO_METRICS)
    return found.metrics_url


def _fetch(url: str) -> str:
    # Here, so that no other command waits until an HTTP client is loaded.
    import httpx  # noqa: PLC0415

    address = url.rstrip("/")
    address = address if address.endswith("/metrics") else f"{address}/metrics"
    try:
        # No proxy stands between this machine and itself.
        answer = httpx.get(address, timeout=_TIMEOUT_S, trust_env=False)
        answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        problem = f"it answers {error.response.status_code} and not with metrics"
        raise InputError(url, problem, _REMEDY) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        problem = f"no server answers here ({str(error).lower() or type(error).__name__})"
        raise InputError(url, problem, _REMEDY) from error
    return answer.text


def _samples(text: str, url: str) -> _Samples:
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    samples: _Samples = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                label = ",".join(sample.labels.values())
                samples.setdefault(sample.name, {})[label] = sample.value
    except ValueError as error:
        raise InputError(url, "these are no Prometheus metrics", _REMEDY) from error
    if not samples.keys() & {"k8s_als_in_count", _FOLLOWER}:
        raise InputError(url, "these are not the metrics of framewalk", _REMEDY)
    return samples


def _rows(samples: _Samples) -> list[tuple[str, str]]:
    def one(name: str) -> float:
        return samples.get(name, {}).get("", 0)

    rows = [
        ("streams acknowledged", f"{one('framewalk_in_streams'):,.0f}"),
        ("messages acknowledged", f"{one('k8s_als_in_count'):,.0f}"),
        ("bytes acknowledged", f"{one('framewalk_in_bytes'):,.0f}"),
        ("streams sent again", f"{one('framewalk_repeated_streams'):,.0f}"),
        ("streams broken off", f"{one('k8s_als_error_streams'):,.0f}"),
        *_counts("streams refused: ", samples.get("k8s_als_drop_count", {})),
        ("streams open", f"{one('framewalk_open_streams'):,.0f}"),
        ("spool bytes", f"{one('framewalk_spool_bytes'):,.0f}"),
        ("receiver memory bytes", f"{one('process_resident_memory_bytes'):,.0f}"),
        ("receiver CPU seconds", f"{one('process_cpu_seconds_total'):,.1f}"),
    ]
    if "framewalk_engine_up" not in samples:
        return [*rows, ("engine", "none")]
    flushes = one("framewalk_engine_flush_seconds_count")
    mean_s = one("framewalk_engine_flush_seconds_sum") / flushes if flushes else 0
    return [
        *rows,
        ("engine", "up" if one("framewalk_engine_up") else "down"),
        ("engine restarts", f"{one('framewalk_engine_restarts'):,.0f}"),
        ("lag seconds", f"{one('framewalk_engine_lag_seconds'):,.1f}"),
        ("stored up to", _time(one("framewalk_engine_watermark_seconds"))),
        ("latest minute", _time(one("framewalk_engine_latest_minute_seconds"))),
        ("messages computed", f"{one('framewalk_engine_messages'):,.0f}"),
        ("logs computed", f"{one('framewalk_engine_logs'):,.0f}"),
        *_counts("logs dropped: ", samples.get("framewalk_engine_dropped_logs", {})),
        *_counts("bad input: ", samples.get("framewalk_engine_bad_input", {})),
        *_known_addresses(samples.get("framewalk_engine_addresses", {})),
        *_published(samples),
        ("rows written", f"{one('framewalk_engine_rows'):,.0f}"),
        ("flushes", f"{flushes:,.0f}"),
        ("mean flush seconds", f"{mean_s:,.3f}"),
        ("unread spool bytes", f"{one('framewalk_engine_unread_bytes'):,.0f}"),
        ("segments deleted", f"{one('framewalk_engine_removed_segments'):,.0f}"),
        ("segments given up", f"{one('framewalk_engine_given_up_segments'):,.0f}"),
        ("days given up", f"{one('framewalk_engine_deleted_days'):,.0f}"),
        ("store bytes", f"{one('framewalk_store_bytes'):,.0f}"),
        *(
            (f"store GB a day: {scope.replace('_', ' ')}", f"{size_bytes / 1e9:,.3f}")
            for scope, size_bytes in samples.get("framewalk_store_bytes_per_day", {}).items()
            if size_bytes
        ),
        ("engine memory bytes", f"{one('framewalk_engine_memory_bytes'):,.0f}"),
        ("engine CPU seconds", f"{one('framewalk_engine_cpu_seconds'):,.1f}"),
    ]


def _followed(samples: _Samples) -> list[tuple[str, str]]:
    """Say how far a follower is, and each engine of its table."""

    def one(name: str) -> float:
        return samples.get(f"framewalk_follow_{name}", {}).get("", 0)

    rows = [
        ("table", "read" if one("up") else "away"),
        ("table away", f"{one('failures'):,.0f} times"),
        ("lag seconds", f"{one('lag_seconds'):,.1f}"),
        ("merged up to", _time(one("watermark_seconds"))),
        ("version", f"{one('version'):,.0f} of {one('table_version'):,.0f}"),
    ]
    if left := one("files_left"):
        rows.append(("files to read", f"{left:,.0f}, all of the table is read"))
    if "framewalk_follow_logs_version" in samples:
        of_logs = f"{one('logs_version'):,.0f} of {one('logs_table_version'):,.0f}"
        rows.append(("version of logs", of_logs))
    rows += [
        ("rows merged", f"{one('rows'):,.0f}"),
        ("table tidied", _time(one("tidied_seconds"))),
        ("engines", f"{one('engines'):,.0f}"),
        ("engines silent", f"{one('silent_engines'):,.0f}"),
    ]
    committed_s = samples.get("framewalk_follow_engine_committed_seconds", {})
    silent = samples.get("framewalk_follow_engine_silent", {})
    for label, commits in samples.get("framewalk_follow_engine_commits", {}).items():
        name = label.partition(",")[2]
        last = f"{commits:,.0f} commits, the last {_time(committed_s.get(label, 0))}"
        rows.append((f"engine {name}", f"{last}, silent" if silent.get(label) else last))
    memory = samples.get("process_resident_memory_bytes", {}).get("", 0)
    cpu_s = samples.get("process_cpu_seconds_total", {}).get("", 0)
    return [*rows, ("memory bytes", f"{memory:,.0f}"), ("CPU seconds", f"{cpu_s:,.1f}")]


def _published(samples: _Samples) -> list[tuple[str, str]]:
    """Say how far commits are published, where they are."""
    if "framewalk_publish_pending_commits" not in samples:
        return []
    pending, pending_bytes, last_s, failures = (
        samples[f"framewalk_publish_{name}"][""]
        for name in ("pending_commits", "pending_bytes", "last_success_seconds", "failures")
    )
    return [
        ("commits not published", f"{pending:,.0f} ({pending_bytes:,.0f} bytes)"),
        ("published last", _time(last_s)),
        ("publishing failed", f"{failures:,.0f}"),
    ]


def _known_addresses(counts: dict[str, float]) -> list[tuple[str, str]]:
    known, every = counts.get("known", 0), sum(counts.values())
    return [("addresses known", f"{known / every:.1%} of {every:,.0f}")] if every else []


def _counts(prefix: str, counts: dict[str, float]) -> list[tuple[str, str]]:
    return [
        (prefix + label.replace("_", " "), f"{count:,.0f}")
        for label, count in counts.items()
        if count
    ]


def _time(seconds: float) -> str:
    if not seconds:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")
