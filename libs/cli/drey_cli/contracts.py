"""The contracts, each loaded when a command first uses it: all of them together take 0.2 s.

Modules of the command import from here at their top, `from drey_cli.contracts import job_pb2`, and
`--help` still loads neither gRPC nor Protocol Buffers.
"""

# ruff: noqa: PLC0414 - `as` says to mypy that these are for others to import
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drey.access.v1 import access_pb2 as access_pb2
    from drey.access.v1 import access_service_pb2 as access_service_pb2
    from drey.audit.v1 import audit_pb2 as audit_pb2
    from drey.audit.v1 import audit_service_pb2 as audit_service_pb2
    from drey.catalog.v1 import catalog_pb2 as catalog_pb2
    from drey.catalog.v1 import catalog_service_pb2 as catalog_service_pb2
    from drey.common.v1 import breaker_pb2 as breaker_pb2
    from drey.common.v1 import errors_pb2 as errors_pb2
    from drey.common.v1 import form_pb2 as form_pb2
    from drey.common.v1 import selector_pb2 as selector_pb2
    from drey.common.v1 import state_pb2 as state_pb2
    from drey.common.v1 import value_pb2 as value_pb2
    from drey.compare.v1 import compare_pb2 as compare_pb2
    from drey.compare.v1 import compare_service_pb2 as compare_service_pb2
    from drey.event.v1 import event_pb2 as event_pb2
    from drey.event.v1 import event_service_pb2 as event_service_pb2
    from drey.job.v1 import job_pb2 as job_pb2
    from drey.job.v1 import job_service_pb2 as job_service_pb2
    from drey.monitor.v1 import monitor_service_pb2 as monitor_service_pb2
    from drey.monitor.v1 import watch_pb2 as watch_pb2
    from drey.policy.v1 import policy_pb2 as policy_pb2
    from drey.policy.v1 import policy_service_pb2 as policy_service_pb2
    from drey.restore.v1 import restore_pb2 as restore_pb2
    from drey.restore.v1 import restore_service_pb2 as restore_service_pb2
    from drey.snapshot.v1 import snapshot_pb2 as snapshot_pb2
    from drey.snapshot.v1 import snapshot_service_pb2 as snapshot_service_pb2
    from drey.system.v1 import system_service_pb2 as system_service_pb2
else:

    class LazyModule:
        """Stands for a module that is imported when an attribute of it is first read."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            attribute_value = getattr(import_module(self._name), attribute)
            setattr(self, attribute, attribute_value)
            return attribute_value

    _AREAS = dict.fromkeys(("breaker", "errors", "form", "selector", "state", "value"), "common")
    _AREAS["watch"] = "monitor"

    def __getattr__(name: str) -> LazyModule:
        """`job_pb2` and `job_service_pb2` are of `drey.job.v1`, and so on."""
        if not name.endswith("_pb2"):
            raise AttributeError(name)
        word = name.removesuffix("_pb2").removesuffix("_service")
        return LazyModule(f"drey.{_AREAS.get(word, word)}.v1.{name}")
