"""Kubernetes: who had which address, and when (analysis.md, section 2).

Takes dumps of a cluster; gives `Entities`, the table of addresses, also from files that change.
May import: what all rooms share.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
