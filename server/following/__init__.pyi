from .following import Following as Following
from .following import FollowOptions as FollowOptions
from .logs import KeptLogs as KeptLogs
from .status import FollowerStatus as FollowerStatus
from .telemetry import FollowerTelemetry as FollowerTelemetry
from .upkeep import Kept as Kept
