"""The verbs `feedseg check` (scan, diagnosis, overlay sheet) and `feedseg fetch`."""
