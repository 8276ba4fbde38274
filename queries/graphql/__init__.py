"""The GraphQL surface of SkyWalking's clients: the schema as a file, and what answers its fields.

May import: mqe, metrics, reading, and what they may.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
