from .app import routes as routes
from .options import GraphqlOptions as GraphqlOptions
from .options import edits_beside as edits_beside
