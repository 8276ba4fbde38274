"""HTTP/1.1 as it is served here: for whoever asks in time and reads.

Takes an application; gives a server in a thread of its own. May import: nothing of framewalk.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
