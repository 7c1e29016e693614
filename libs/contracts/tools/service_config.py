"""Write `proto/service_config.json`: which calls a gRPC client repeats by itself, and how.

From the contracts alone: a call is repeated when its method says that it has no effect, or that a
repeat does nothing twice. Run by `make contracts`; the arguments are the file to write and buf.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodOptions

ROOT = Path(__file__).resolve().parents[3]
POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.2s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
THROTTLING = {"maxTokens": 20, "tokenRatio": 0.2}
"""A client stops repeating while most of its calls fail, so that a restart is not a storm."""


def repeatable(files: FileDescriptorSet) -> Iterator[dict[str, str]]:
    """The methods that may be repeated. One that is sent a stream is not: its parts are gone."""
    for file in files.file:
        for service in file.service:
            for method in service.method:
                level = method.options.idempotency_level
                if level != MethodOptions.IDEMPOTENCY_UNKNOWN and not method.client_streaming:
                    yield {"service": f"{file.package}.{service.name}", "method": method.name}


def service_config(files: FileDescriptorSet) -> dict[str, Any]:
    """The service config, as gRPC's clients in every language take it."""
    return {
        "retryThrottling": THROTTLING,
        "methodConfig": [{"name": list(repeatable(files)), "retryPolicy": POLICY}],
    }


def main() -> None:
    out, buf = sys.argv[1:]
    command = [buf, "build", "proto", "--path", "proto/drey", "-o", "-#format=binpb"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    config = service_config(FileDescriptorSet.FromString(built))
    Path(out).write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
