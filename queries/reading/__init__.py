"""Reading: what a query may do, for how long, and the forms of its answer.

Takes a connection to a store and SQL; gives chunks of bytes, or a copy of the store. May import:
the store's SQL, and what all rooms share.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
