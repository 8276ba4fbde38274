from .collect import Collector as Collector
from .collect import Received as Received
from .limits import InFlight as InFlight
from .limits import LimitError as LimitError
from .telemetry import Telemetry as Telemetry
