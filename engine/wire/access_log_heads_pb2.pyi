from framewalk.engine.wire import access_log_pb2 as _access_log_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AccessLogMessageHeads(_message.Message):
    __slots__ = ("node", "connection")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    node: _access_log_pb2.EBPFAccessLogNodeInfo
    connection: _access_log_pb2.AccessLogConnection
    def __init__(self, node: _Optional[_Union[_access_log_pb2.EBPFAccessLogNodeInfo, _Mapping]] = ..., connection: _Optional[_Union[_access_log_pb2.AccessLogConnection, _Mapping]] = ...) -> None: ...
