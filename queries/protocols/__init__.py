"""All query protocols of one store together, as `serve` and `query-server` have them.

Takes a connection and options of each protocol; gives one server. May import: the protocols,
sql_endpoint, serving.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
