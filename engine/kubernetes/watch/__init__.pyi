from .cluster import ClusterWatch as ClusterWatch
from .connection import ClusterAccess as ClusterAccess
from .connection import Timing as Timing
from .connection import context_of as context_of
from .live import LiveEntities as LiveEntities
from .recording import EntitiesRecorder as EntitiesRecorder
