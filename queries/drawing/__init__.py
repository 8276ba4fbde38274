"""Drawing: a map of services as text, as a graph for other tools, and as a picture.

Takes rows of the shipped query `service_map`; gives text. May import metrics, and what it
may.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
