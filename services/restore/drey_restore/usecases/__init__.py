"""What the service does, in order of effects."""
