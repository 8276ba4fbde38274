"""Captures: Rover's raw messages on disk, or on object storage (capture.md).

Takes files and folders, or objects; gives record batches of CAPTURE_SCHEMA with the position after
each, of whole files and of segments that are still being written. May import: what all rooms share.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
