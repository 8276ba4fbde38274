from .following import Following as Following
from .following import FollowOptions as FollowOptions
from .logs import KeptLogs as KeptLogs
from .upkeep import Kept as Kept
