"""The public contracts as one descriptor set, by which a proxy turns JSON into messages."""

from __future__ import annotations

import importlib
import pkgutil

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc import code_pb2, error_details_pb2, status_pb2

import drey

_PRIVATE = "drey.internal."
_ERRORS = (code_pb2, error_details_pb2, status_pb2)
"""What the details of an error are made of; no contract imports them."""


def public_contracts() -> tuple[FileDescriptorSet, list[str]]:
    """Every file of the public contracts, imported ones first, and the names of the services.

    Taken from the generated classes, so it is what the services of this installation speak.
    """
    names = [module.name for module in pkgutil.walk_packages(drey.__path__, "drey.")]
    public = [name for name in names if name.endswith("_pb2") and not name.startswith(_PRIVATE)]
    files: dict[str, FileDescriptor] = {}
    for module in (*map(importlib.import_module, public), *_ERRORS):
        _add_file(module.DESCRIPTOR, files)
    services = [service for file in files.values() for service in file.services_by_name.values()]
    protos = FileDescriptorSet(
        file=[FileDescriptorProto.FromString(file.serialized_pb) for file in files.values()]
    )
    return protos, sorted(service.full_name for service in services)


def _add_file(file: FileDescriptor, files: dict[str, FileDescriptor]) -> None:
    if file.name not in files:
        for imported in file.dependencies:
            _add_file(imported, files)
        files[file.name] = file
