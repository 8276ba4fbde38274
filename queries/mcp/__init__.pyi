from .answers import Answer as Answer
from .answers import Answerer as Answerer
from .answers import AnswerError as AnswerError
from .answers import Asked as Asked
from .server import make_server as make_server
