from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class AccessLogMessageFields(_message.Message):
    __slots__ = ("node", "connection", "kernelLogs", "protocolLog")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    KERNELLOGS_FIELD_NUMBER: _ClassVar[int]
    PROTOCOLLOG_FIELD_NUMBER: _ClassVar[int]
    node: _containers.RepeatedScalarFieldContainer[bytes]
    connection: _containers.RepeatedScalarFieldContainer[bytes]
    kernelLogs: _containers.RepeatedScalarFieldContainer[bytes]
    protocolLog: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, node: _Optional[_Iterable[bytes]] = ..., connection: _Optional[_Iterable[bytes]] = ..., kernelLogs: _Optional[_Iterable[bytes]] = ..., protocolLog: _Optional[_Iterable[bytes]] = ...) -> None: ...
