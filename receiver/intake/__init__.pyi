from .collect import Collector as Collector
from .collect import Received as Received
from .limits import InFlight as InFlight
from .limits import Kind as Kind
from .limits import LimitError as LimitError
from .limits import Share as Share
from .pace import Pace as Pace
from .telemetry import Telemetry as Telemetry
