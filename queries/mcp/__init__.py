"""Questions that agents ask over the Model Context Protocol, each with the SQL that answers it.

Takes whatever answers a shipped query or SQL; gives a server of the `mcp` package. May import:
reading, shipped.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
