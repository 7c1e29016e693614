"""What every service stands on: settings, logs, telemetry, gRPC, bus, image, database, jobs."""

import os

# libca forks to start caRepeater. gRPC would start threads in that child, which closes their files
# under them before it becomes caRepeater: it may crash, and then nobody hears an IOC's beacons.
# Read when gRPC is loaded.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
