"""The command line: `python -m tests.campaign`."""

import argparse
import signal
import sys
from pathlib import Path

from tests.campaign import campaign, faults


def main(arguments: list[str] | None = None) -> int:
    """0; 1 if anything was lost or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=campaign.__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=faults.names(), default=None)
    parser.add_argument("--minutes", type=float, default=20, help="of all faults together (20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--try", type=int, dest="number", metavar="K", help="this one try alone")
    parser.add_argument("--output", type=Path, help="results as JSON, and beside it as Markdown")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found = {name: faults.load(name) for name in args.only or faults.names()}
    tallies = campaign.run(found, args.minutes * 60, args.seed, args.number)
    print(campaign.table(tallies))
    if args.output:
        campaign.write(args.output, tallies, args.seed, args.minutes)
    return int(any(tally.failures for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
