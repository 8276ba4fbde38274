from .files import PAGE_PATH as PAGE_PATH
from .files import page_routes as page_routes
