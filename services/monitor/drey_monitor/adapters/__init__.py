"""Ways to the parts outside the process."""
