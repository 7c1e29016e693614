"""The commands, by module: each has `app`, and loads gRPC only when a command of it runs."""
