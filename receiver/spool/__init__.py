"""The spool: streams on disk before they are acknowledged, each once.

Takes streams of messages; gives segments, which are captures. May import: captures, and what all
rooms share without schemas.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
