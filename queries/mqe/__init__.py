"""MQE, the metrics query expression: text becomes a tree, its leaves are read, arrays are computed.

May import: metrics, and what it may.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
