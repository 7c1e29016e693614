"""The catalog of PVs: its columns in memory, its rows in Postgres, its two services."""
