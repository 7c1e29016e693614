"""What every service stands on: settings, logs, telemetry, gRPC, bus, image, database, jobs."""
