from .child import EngineChild as EngineChild
from .child import EngineError as EngineError
from .link import EngineOptions as EngineOptions
from .link import SqlEndpoint as SqlEndpoint
from .memory import default_limit_bytes as default_limit_bytes
from .telemetry import EngineTelemetry as EngineTelemetry
