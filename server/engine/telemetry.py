"""What the engine process says about itself, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from framewalk.server.engine.child import EngineChild
    from framewalk.server.engine.link import EngineStatus

# Metric: what it says, the field of EngineStatus.
_GAUGES: Final = (
    ("latest_minute_seconds", "Start of the latest minute that has metrics.", "latest_minute_s"),
    ("messages", "Messages read from the spool.", "messages"),
    ("logs", "Logs in these messages.", "logs"),
    ("rows", "Rows of states written.", "rows"),
    ("last_flush_seconds", "Seconds that the last commit took.", "last_flush_s"),
    ("unread_bytes", "Bytes of the spool that are not in the store.", "unread_bytes"),
    ("removed_segments", "Segments deleted.", "removed_segments"),
    (
        "given_up_segments",
        "Stored segments deleted before their time, for the disk was full.",
        "given_up_segments",
    ),
    ("given_up_logs", "Logs that were counted and could not be archived.", "given_up_logs"),
    ("archive_bytes", "Size of the archived logs.", "archive_bytes"),
    ("remaking_minutes", "Minutes of metrics that are to be made again.", "remaking_minutes"),
    ("deleted_days", "Days deleted because the store had too much.", "deleted_days"),
    ("deleted_rows", "Rows of states of these days.", "deleted_rows"),
    ("memory_bytes", "Resident memory of the engine process.", "memory_bytes"),
    ("cpu_seconds", "CPU time of the engine process.", "cpu_s"),
)
_PUBLISH_GAUGES: Final = (
    ("pending_commits", "Commits that are not published yet.", "publish_pending_commits"),
    ("pending_bytes", "Bytes of these commits.", "publish_pending_bytes"),
    ("last_success_seconds", "When commits were published last.", "publish_last_s"),
    ("failures", "How often commits could not be published.", "publish_failures"),
)


class EngineTelemetry(Collector):
    """Exports the last status of the engine whenever somebody asks.

    The counts start again with each engine process.
    """

    def __init__(self, engine: EngineChild) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        engine, status = self._engine, self._engine.status
        yield _gauge("up", "Whether the engine works.", engine.is_up)
        yield _gauge("restarts", "How often the engine was started again.", engine.restarts)
        yield _gauge("lag_seconds", "Age of the oldest message not in the store.", engine.lag_s)
        text = "What came before this time is in the store."
        yield _gauge("watermark_seconds", text, engine.watermark_s)
        for name, text, field in _GAUGES:
            yield _gauge(name, text, getattr(status, field))
        if status.is_publishing:
            for name, text, field in _PUBLISH_GAUGES:
                value = getattr(status, field)
                yield GaugeMetricFamily(f"framewalk_publish_{name}", text, value=value)
        yield _flushes(status)
        yield _by_label("dropped_logs", "Logs left out.", "reason", status.dropped)
        yield _by_label("bad_input", "Messages and values repaired.", "kind", status.quality)
        text = "IP addresses of logs, by whether they stand for somebody."
        yield _by_label("addresses", text, "kind", status.addresses)
        yield GaugeMetricFamily(
            "framewalk_store_bytes", "Size of the store.", value=status.store_bytes
        )
        yield GaugeMetricFamily(
            "framewalk_store_used_bytes",
            "What the store's budget counts.",
            value=status.store_used_bytes,
        )
        text = "Bytes that minutes of metrics take a day."
        family = GaugeMetricFamily("framewalk_store_bytes_per_day", text, labels=["scope"])
        for scope, size_bytes in status.store_bytes_per_day.items():
            family.add_metric([scope], size_bytes)
        yield family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"framewalk_engine_{name}", text, value=value)


def _flushes(status: EngineStatus) -> SummaryMetricFamily:
    return SummaryMetricFamily(
        "framewalk_engine_flush_seconds",
        "Seconds that commits took.",
        count_value=status.flushes,
        sum_value=status.flush_total_s,
    )


def _by_label(name: str, text: str, label: str, counts: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"framewalk_engine_{name}", text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
