"""A fault-injection campaign: feedseg under kills, full disks, damaged files and odd input.

    python -m tests.campaign [--only NAME ...] [--minutes N] [--seed N] [--output FILE.json]

A file of `faults/` is a fault and is found by its name. Its one function `attempt(rng, folder)`
gives an `Outcome`; rng: a `random.Random` of the seed, the fault and the number of the try; folder:
empty, removed afterwards. What is right stands in `Ended.problem` (`process.py`) for commands, in
`tasks.py` for what they write and in `reading.py` for files that are read.
"""
