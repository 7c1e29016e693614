"""SQL of the catalogue."""
