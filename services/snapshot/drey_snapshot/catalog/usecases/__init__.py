"""Order of effects: lock, decide, write, audit, commit, announce."""
