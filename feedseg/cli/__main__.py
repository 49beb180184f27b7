"""`python -m feedseg.cli`, the same as the `feedseg` command."""

from feedseg.cli import main

main()
