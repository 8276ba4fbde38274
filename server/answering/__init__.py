"""How a process answers queries: in the protocols that are wanted, over a connection to a store.

Takes endpoints and a connection; gives what is served. May import: the queries.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
