"""Narrowing: a statement that names a few metrics, with no others in the views that it reads.

Takes a connection to a store and a statement with its tree; gives SQL with the same rows, which
DuckDB binds faster. May import: reading, the store's SQL, the catalogue of definitions, and what
all rooms share.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
