"""The commands, by module: each loads gRPC only when a command of it runs."""

SUMMARIES = {
    "up": "Start Postgres, NATS, Redis and all services here; Ctrl-C stops everything.",
    "demo": "Start everything with a simulated machine and walk the main job.",
    "status": "Show how the whole does: services, shards, IOCs, findings. Exit 1 unless healthy.",
    "breaker": "Circuit breakers of IOCs: held open or closed by hand; `status` shows them.",
    "pv": "PVs: the catalog, its files, and the live values.",
    "tag": "Tags of PVs, in groups.",
    "policy": "How restores treat PVs by default, by device and by tag.",
    "snapshot": "Snapshots: take, look, compare. Named by id, part of one, `latest`, or title.",
    "restore": "Put a stored state back: plan, look, run. Only `run` writes to the machine.",
    "job": "Background work: list, follow, stop.",
    "event": "Changes of the catalog, of snapshots, plans, restores, jobs and keys.",
    "key": "API keys: who may do what.",
    "whoami": "Say who you are to the server, and what you may do.",
    "audit": "Who did what, and whether the record of it is whole.",
}
"""A line on each, so that `drey --help` need not load them all."""
MODULES = {
    "demo": ("up",),
    "whoami": ("key",),
    "pv": ("pv", "pv_watch", "pv_edit", "pv_files"),
    "snapshot": ("snapshot_take", "snapshot", "snapshot_compare", "snapshot_drift"),
    "restore": ("restore", "restore_run", "restore_approve", "restore_rehearse"),
    "audit": ("audit", "audit_record"),
}
"""Modules that make a command, where it is not one of the same name."""
