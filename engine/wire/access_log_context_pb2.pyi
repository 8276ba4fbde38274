from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AccessLogMessageContext(_message.Message):
    __slots__ = ("node", "connection")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    node: NodeContext
    connection: ConnectionContext
    def __init__(self, node: _Optional[_Union[NodeContext, _Mapping]] = ..., connection: _Optional[_Union[ConnectionContext, _Mapping]] = ...) -> None: ...

class NodeContext(_message.Message):
    __slots__ = ("clusterName",)
    CLUSTERNAME_FIELD_NUMBER: _ClassVar[int]
    clusterName: str
    def __init__(self, clusterName: _Optional[str] = ...) -> None: ...

class ConnectionContext(_message.Message):
    __slots__ = ("local", "remote", "role", "attachment")
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    REMOTE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    local: AddressContext
    remote: AddressContext
    role: int
    attachment: AttachmentContext
    def __init__(self, local: _Optional[_Union[AddressContext, _Mapping]] = ..., remote: _Optional[_Union[AddressContext, _Mapping]] = ..., role: _Optional[int] = ..., attachment: _Optional[_Union[AttachmentContext, _Mapping]] = ...) -> None: ...

class AddressContext(_message.Message):
    __slots__ = ("kubernetes", "ip")
    KUBERNETES_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    kubernetes: NamedContext
    ip: IPContext
    def __init__(self, kubernetes: _Optional[_Union[NamedContext, _Mapping]] = ..., ip: _Optional[_Union[IPContext, _Mapping]] = ...) -> None: ...

class NamedContext(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IPContext(_message.Message):
    __slots__ = ("host", "port")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    host: str
    port: int
    def __init__(self, host: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class AttachmentContext(_message.Message):
    __slots__ = ("zTunnel",)
    ZTUNNEL_FIELD_NUMBER: _ClassVar[int]
    zTunnel: ZTunnelContext
    def __init__(self, zTunnel: _Optional[_Union[ZTunnelContext, _Mapping]] = ...) -> None: ...

class ZTunnelContext(_message.Message):
    __slots__ = ("real_destination_ip", "by")
    REAL_DESTINATION_IP_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    real_destination_ip: str
    by: int
    def __init__(self, real_destination_ip: _Optional[str] = ..., by: _Optional[int] = ...) -> None: ...
