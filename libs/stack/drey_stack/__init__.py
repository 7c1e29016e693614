"""Embedded servers and supervised processes: what `drey up` and the integration tests stand on."""

from drey_stack.envoy import Envoy
from drey_stack.envoy_config import HttpOptions
from drey_stack.errors import ChildFailed, FolderBusy, PartFailed, StackError
from drey_stack.nats import Nats
from drey_stack.part import Part
from drey_stack.ports import free_port, is_free
from drey_stack.postgres import Postgres
from drey_stack.process import Process
from drey_stack.supervisor import Child, ChildState, ChildStatus, RestartPolicy, Supervisor
from drey_stack.valkey import Valkey

__all__ = [
    "Child",
    "ChildFailed",
    "ChildState",
    "ChildStatus",
    "Envoy",
    "FolderBusy",
    "HttpOptions",
    "Nats",
    "Part",
    "PartFailed",
    "Postgres",
    "Process",
    "RestartPolicy",
    "StackError",
    "Supervisor",
    "Valkey",
    "free_port",
    "is_free",
]
