"""What everything stands on: errors, files, devices, processes, signals, logs, tables."""
