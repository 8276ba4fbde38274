"""The server: puts the receiving process and its engine process together.

Takes a `Config`; gives a process that runs until it is told to stop. May import: everything but
the command.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
