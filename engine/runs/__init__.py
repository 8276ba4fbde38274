"""Runs: captures, or a spool that grows, into a store, each log counted once.

Takes paths, `Entities` and a store; gives what was counted. May import: every other room of the
engine but explain.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
