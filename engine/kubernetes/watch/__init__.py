"""A live watch of a cluster: the same sightings as of dumps, as they happen.

Takes an API server that may be away; gives an inventory, and the newest table.
May import: what all rooms share, and engine/kubernetes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
