"""What changes while a server runs: its definitions, and metrics of before that are made again.

Takes what commands ask in files beside the store; gives the definitions that an engine computes,
and makes metrics again beside receiving. May import: the engine.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
