"""What people are told about definitions: explanations, plain SQL, the reference pages.

Takes a plan; gives sections of text. May import: oal, states, store, views.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
