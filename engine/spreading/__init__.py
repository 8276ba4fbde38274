"""Spreading: the work of a replay done by other processes, of this machine or of a cluster.

Takes what a replay takes, and who does the work; gives what it gives, row by row. May import: every
other room of the engine but explain and remaking.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
