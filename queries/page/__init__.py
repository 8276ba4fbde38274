"""The page: files for a browser, which asks what everybody may ask (SQL and GraphQL).

Takes requests; gives files, with headers that keep a browser from all that is not the page's own.
May import: nothing of other rooms.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
