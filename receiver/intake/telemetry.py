"""What the receiver says about itself, for Prometheus.

The names that dashboards of the ecosystem know come first (`k8s_als_*`); framewalk's own begin
with its name. Counts are exported as they are named there, without the `_total` that the
client library would add to a counter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector

from framewalk.receiver.intake.limits import Limit

if TYPE_CHECKING:
    from collections.abc import Callable

_LATENCY_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 20)
# Shown as 0 before the first one, so that a rate over it begins with 0.
_REASONS = ("authentication", "disk", "spool", *Limit)


class Telemetry:
    """The receiver's counts, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._messages = self._count("k8s_als_in_count", "Messages acknowledged.")
        self._bytes = self._count("framewalk_in_bytes", "Bytes of messages acknowledged.")
        self._streams = self._count("framewalk_in_streams", "Streams acknowledged.")
        self._repeated = self._count(
            "framewalk_repeated_streams", "Streams acknowledged that the spool held before."
        )
        self._broken = self._count(
            "k8s_als_error_streams", "Streams that broke off, or had a message over the limit."
        )
        self._dropped = Gauge(
            "k8s_als_drop_count",
            "Streams refused, by reason.",
            ["reason"],
            registry=self.registry,
        )
        for reason in _REASONS:
            self._dropped.labels(reason)
        self._latency = self._duration(
            "k8s_als_in_latency", "Seconds from the begin of a stream until it is on disk."
        )
        self._flushes = self._duration(
            "framewalk_spool_flush_seconds", "Seconds that writing a group of streams took."
        )

    def received(self, messages: int, size_bytes: int, duration_s: float) -> None:
        """Count a stream that was acknowledged."""
        self._streams.inc()
        self._messages.inc(messages)
        self._bytes.inc(size_bytes)
        self._latency.observe(duration_s)

    def repeated_stream(self) -> None:
        """Count a stream that was acknowledged and not written again."""
        self._repeated.inc()

    def refused(self, reason: str) -> None:
        """Count a stream that was refused."""
        self._dropped.labels(reason).inc()

    def broken_stream(self) -> None:
        """Count a stream that ended without its end."""
        self._broken.inc()

    def flushed(self, duration_s: float) -> None:
        """Count a group of streams that was written."""
        self._flushes.observe(duration_s)

    def watch(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Export what `read` returns whenever somebody asks."""
        Gauge(name, documentation, registry=self.registry).set_function(read)

    def _count(self, name: str, documentation: str) -> Gauge:
        return Gauge(name, documentation, registry=self.registry)

    def _duration(self, name: str, documentation: str) -> Histogram:
        return Histogram(name, documentation, buckets=_LATENCY_S, registry=self.registry)
