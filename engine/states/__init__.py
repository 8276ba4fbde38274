"""States: what logs amount to, and how it adds up.

Takes states of a plan; gives their sum, in any order. May import: oal.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
