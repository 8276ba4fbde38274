from .live import Flushed as Flushed
from .live import SpoolFollower as SpoolFollower
from .live import forgettable as forgettable
from .replayer import COMMIT_LOGS as COMMIT_LOGS
from .replayer import ReplayProgress as ReplayProgress
from .replayer import ReplaySummary as ReplaySummary
from .replayer import replay as replay
