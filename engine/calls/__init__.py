"""Calls: the two logs of each put together, and which request each was made for.

Takes frames of resolved HTTP logs; gives calls, and states of relations between endpoints. Pure: no
I/O and no clock. May import: captures, kubernetes, oal, states, stages.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
