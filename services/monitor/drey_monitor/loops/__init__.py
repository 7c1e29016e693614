"""Work that runs until the process stops or a shard is lost."""
