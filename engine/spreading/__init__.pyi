from .cluster import ClusterPool as ClusterPool
from .cluster import TlsFiles as TlsFiles
from .local import LocalPool as LocalPool
from .pool import Pool as Pool
from .replaying import ReplayOptions as ReplayOptions
from .replaying import replay_spread as replay_spread
