"""The SQL endpoint: queries over HTTP, from the server and from who asks.

Takes requests; gives answers of `reading`. May import: page, reading, plain_http.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
