"""Spreading: the work of a command done by other processes, of this machine or of a cluster.

Takes what a replay takes, or what is to be made again, and who does the work; gives what one
process gives, row by row. May import: every other room of the engine but explain.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
