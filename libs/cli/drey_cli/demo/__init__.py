"""The walk through the main job that `drey demo` shows."""
