"""OAL, the language that metrics are defined in: from a text to a plan of states.

Takes definitions and Apdex thresholds; gives the syntax tree, bound metrics, and the plan with the
Polars expressions of its states. May import: what all rooms share.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
