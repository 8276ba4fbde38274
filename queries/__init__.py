"""What people read from a store, and how: shipped definitions and queries, and their protocols.

`oal/` and `sql/` are data; a room each for reading and for a protocol.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
