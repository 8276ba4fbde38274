"""The engine process: as its parent sees it, and the process itself (process.py).

Takes `EngineOptions`; gives what it tells of itself. May import: runs, store, queries, transports.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
