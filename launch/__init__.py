"""Making a stored sweep: on this machine, on a cluster; and watching it. See launch/README.md."""
