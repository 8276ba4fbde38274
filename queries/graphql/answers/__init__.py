"""What answers each field at the top of a document.

Takes a cursor to a store and arguments; gives plain values, whole, in the shape of the schema. May
import: mqe, metrics, and what they may.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
