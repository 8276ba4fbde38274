from .cluster import ClusterPool as ClusterPool
from .cluster import TlsFiles as TlsFiles
from .local import LocalPool as LocalPool
from .nursery import Nursery as Nursery
from .pool import Pool as Pool
from .remade import SpreadMaking as SpreadMaking
from .replaying import ReplayOptions as ReplayOptions
from .replaying import replay_spread as replay_spread
