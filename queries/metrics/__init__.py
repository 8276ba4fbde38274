"""Metrics and entities of a store, as every query protocol asks for them.

Takes a connection to a store, names of metrics and of entities, and ranges of buckets; gives
arrays of values, with NaN where nothing is stored. May import: narrowing, the store's SQL, the
catalogue of definitions, and what all rooms share.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
