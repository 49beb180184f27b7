"""Scores of segmentations: of label images in folders and of a run's test images."""
