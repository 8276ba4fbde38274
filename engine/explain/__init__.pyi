from .metric import Section as Section
from .metric import explain_metric as explain_metric
from .metric import explain_plan as explain_plan
from .metric import find_metric as find_metric
