"""What all data sets share: pairing and reading files, targets, splits, and the arrays of a run."""
