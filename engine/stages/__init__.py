"""The stages: captured messages in, mergeable states out, without I/O and without a clock.

Takes record batches, `Entities` and a plan; gives states. May import: captures, kubernetes, oal,
states, wire.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
