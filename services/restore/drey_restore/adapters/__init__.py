"""The ways to Postgres, Channel Access and the other services."""
