from .apdex import read_apdex_thresholds as read_apdex_thresholds
from .definitions import definition_files as definition_files
from .definitions import load_plan as load_plan
from .definitions import load_plan_of_files as load_plan_of_files
from .definitions import read_bytes as read_bytes
from .definitions import read_definitions as read_definitions
from .endpoints import read_endpoint_patterns as read_endpoint_patterns
