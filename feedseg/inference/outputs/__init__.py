"""The files that are made of a segmented image."""
