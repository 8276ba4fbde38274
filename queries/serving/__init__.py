"""Serving: what all query protocols share, from the socket to a cursor in a slot.

Takes a connection to a store and the routes of protocols; gives servers behind a guard. May
import: reading, plain_http.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
