"""Image files: reading by rows, normalization, calibration, colors."""
