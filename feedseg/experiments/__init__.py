"""Experiments: sweeps of runs, published tables, reports, and figures of trained networks."""
