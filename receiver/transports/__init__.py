"""Transports: what carries the calls of senders, behind one seam.

Takes options and a `Collector`; gives a `Transport` that listens on one port. May import: intake,
spool, wire.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
