"""The floor under a replay: read a capture and decode its messages with ptars, nothing else.

    python benchmarks/rivals/read_only.py CAPTURE

Prints the number of messages and of logs.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec

import pyarrow as pa
from ptars import HandlerPool


def main() -> None:
    """Decode record batch by record batch."""
    _leave_the_engine_out()
    from framewalk.engine.wire.access_log_pb2 import (  # noqa: PLC0415 - needs the line above
        EBPFAccessLogMessage,
    )

    descriptor = EBPFAccessLogMessage.DESCRIPTOR
    handler = HandlerPool([descriptor.file]).get_for_message(descriptor)
    messages = logs = 0
    with pa.OSFile(sys.argv[1]) as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            decoded = handler.array_to_record_batch(batch["message"])
            messages += decoded.num_rows
            protocol = decoded["protocolLog"]
            logs += len(decoded["kernelLogs"].flatten()) + len(protocol) - protocol.null_count
    print(messages, logs)


def _leave_the_engine_out() -> None:
    """Import the package of the protobuf code without running what the engine imports."""
    spec = find_spec("framewalk.engine")
    assert spec is not None
    sys.modules[spec.name] = module_from_spec(spec)


if __name__ == "__main__":
    main()
