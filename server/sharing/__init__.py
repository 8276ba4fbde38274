"""What a process shares with others through a table: an engine publishes, a follower merges.

Takes settings and a store; gives what is told of it. May import: engine/sharing, the store.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
