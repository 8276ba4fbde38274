from .load import Config as Config
from .load import ConfigError as ConfigError
from .load import Setting as Setting
from .load import effective_settings as effective_settings
from .load import load_config as load_config
from .model import Telemetry as Telemetry
from .variables import UnknownVariable as UnknownVariable
from .variables import unknown_variables as unknown_variables
