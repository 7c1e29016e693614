"""The commands. Each module has `register(app)`, and imports gRPC only inside its commands."""
