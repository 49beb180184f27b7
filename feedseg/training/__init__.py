"""Training: read `train` first, then `step` (loss, gradient, update) and `setup`."""
