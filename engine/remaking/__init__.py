"""What is made again of the archive, minute by minute: relations of calls, metrics of definitions.

Takes a store and its archive; replaces states of the store. May import: every other room of the
engine but runs and explain.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
