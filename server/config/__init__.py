"""Configuration: a YAML file and the environment, checked as a whole.

Takes a path and variables; gives a `Config`, or every problem at once. May import: transports, for
the options of a server.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
