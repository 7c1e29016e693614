"""What this server is: its contracts and its limits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor

from drey.common.v1 import annotations_pb2
from drey.system.v1 import system_service_pb2 as pb
from drey_gateway.settings import GatewaySettings
from drey_runtime.app import service_version
from drey_runtime.interceptor import MAX_REQUEST_BYTES
from drey_runtime.server import bounds_of


def server_info(settings: GatewaySettings, services: Iterable[str]) -> pb.GetServerInfoResponse:
    """Of a gateway with these settings that serves these services, by full name."""
    descriptors = [descriptor_pool.Default().FindServiceByName(name) for name in sorted(services)]
    bounds = bounds_of(settings)
    info = pb.GetServerInfoResponse(
        version=service_version(),
        contract_revision=contract_revision(service.file for service in descriptors),
        services=[service.full_name for service in descriptors],
        not_built=sorted(
            method.full_name
            for service in descriptors
            for method in service.methods
            if method.GetOptions().Extensions[annotations_pb2.not_built]
        ),
        limits=pb.ServerLimits(
            request_bytes=MAX_REQUEST_BYTES,
            calls=bounds.calls,
            watches=settings.max_watchers,
            key_share=bounds.share,
            calls_per_s=bounds.calls_per_s,
        ),
    )
    info.limits.first_message.FromNanoseconds(round(bounds.first_message_s * 1e9))
    return info


def contract_revision(files: Iterable[FileDescriptor]) -> str:
    """Digest of these files of Drey and of those that they import; equal: equal contracts."""
    needed: dict[str, FileDescriptor] = {}
    todo = list(files)
    while todo:
        file = todo.pop()
        if file.name.startswith("drey/") and file.name not in needed:
            needed[file.name] = file
            todo += file.dependencies
    digest = hashlib.sha256()
    for name in sorted(needed):
        digest.update(needed[name].serialized_pb)
    return digest.hexdigest()
