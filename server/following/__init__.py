"""A store that follows a table: what is new there is merged again and again, and upkept.

Takes an address, a path and options; gives a store. May import: the engine's upkeep, sharing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
