"""A run on disk: configuration, directory, checkpoints, lock, heartbeat."""
