"""Definitions and Apdex thresholds as files.

Takes paths, or nothing for the shipped definitions; gives a plan, or every error of every file.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
