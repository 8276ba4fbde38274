"""Intake: taking in streams within limits, and counting them; no transport is known here.

Takes chunks of messages; gives them to the spool. May import: spool.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
