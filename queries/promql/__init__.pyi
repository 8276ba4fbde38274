from .app import answer as answer
from .app import routes as routes
from .series import Timeline as Timeline
