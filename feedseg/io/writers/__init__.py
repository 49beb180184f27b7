"""Files that other tools open: a label format is one file, found by name (`formats`)."""
