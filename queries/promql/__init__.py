"""Prometheus' HTTP API over the metrics of a store, for Grafana's own data source.

May import: metrics, reading, and what they may.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
