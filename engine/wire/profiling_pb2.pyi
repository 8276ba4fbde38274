from framewalk.engine.wire import common_pb2 as _common_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class EBPFProfilingTaskQuery(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EBPFProfilingData(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ContinuousProfilingPolicyQuery(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ContinuousProfilingReport(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
