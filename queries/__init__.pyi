from .shipped import Value as Value
from .shipped import asked as asked
from .shipped import shipped_queries as shipped_queries
from .shipped import with_values as with_values
