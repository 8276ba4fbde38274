from .cluster import ClusterWatch as ClusterWatch
from .connection import ClusterAccess as ClusterAccess
from .connection import Timing as Timing
from .live import LiveEntities as LiveEntities
from .recording import EntitiesRecorder as EntitiesRecorder
