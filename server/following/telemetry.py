"""What a process that follows a table says about itself, for Prometheus."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

    from framewalk.server.following.status import FollowerStatus

# Metric: what it says, the field of FollowedEngine.
_OF_ENGINES: Final = (
    ("commits", "Commits of an engine that are in the store.", "commits"),
    ("committed_seconds", "When the last of them was made.", "committed_s"),
    ("seen_seconds", "When the last of them was found here.", "seen_s"),
    ("silent", "Whether it has given no sign of life for three minutes.", "is_silent"),
)


class FollowerTelemetry(Collector):
    """Exports what `status` returns whenever somebody asks. Counts begin with the process."""

    def __init__(self, status: Callable[[], FollowerStatus]) -> None:
        self._status = status
        self._begun_s = time.time()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        status = self._status()
        yield _gauge("up", "Whether the table answers.", status.is_reading)
        yield _gauge("failures", "How often it did not.", status.failures)
        text = "What was published before this time is in the store."
        yield _gauge("watermark_seconds", text, status.watermark_s)
        lag_s = max(time.time() - (status.watermark_s or self._begun_s), 0)
        yield _gauge("lag_seconds", "Time since then, or since the start.", lag_s)
        yield _gauge("rows", "Rows of states merged.", status.rows)
        text = "Files that are still to be read of a table that is read as a whole."
        yield _gauge("files_left", text, status.files_left)
        yield _gauge("version", "Version of the table that is in the store.", status.states.merged)
        text = "Version of the table at the last look."
        yield _gauge("table_version", text, status.states.table)
        if status.logs is not None:
            text = "Version of the table of logs that is archived."
            yield _gauge("logs_version", text, status.logs.merged)
            text = "Version of the table of logs at the last look."
            yield _gauge("logs_table_version", text, status.logs.table)
        yield _gauge("tidied_seconds", "When the table was tidied from here.", status.tidied_s)
        yield _gauge("engines", "Engines that have published.", status.engines.engines)
        yield _gauge("silent_engines", "Those that are silent.", status.engines.silent)
        for name, text, field in _OF_ENGINES:
            family = GaugeMetricFamily(
                f"framewalk_follow_engine_{name}", text, labels=["engine", "name"]
            )
            for one in status.engines.newest:
                family.add_metric([one.engine, one.name], float(getattr(one, field)))
            yield family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"framewalk_follow_{name}", text, value=value)
