"""Trains and evaluates.

python -m feedseg.main --config NAME[:key=value,...] [--config.key=value] [--workdir D]
"""

import sys
from pathlib import Path

import feedseg
from feedseg.runtime import console, large_pages, signals
from feedseg.runtime.errors import guarded, leave
from feedseg.runtime.processes import Processes


def train(argv: list[str]) -> int:
    """Run the configuration that the arguments name; returns the exit code."""
    if {"-h", "--help", "-help"} & set(argv):
        from feedseg.runs import config, train_help

        console.say(train_help.text(config.config_name(argv)))
        return 0
    with Processes():
        return _train(argv)


def _train(argv: list[str]) -> int:
    from feedseg.runs import config as configs
    from feedseg.runtime.files import require_folder
    from feedseg.runtime.logs import Log

    config, workdir = configs.parse_flags(argv)
    path = Path(workdir) if workdir else Path("runs") / config.experiment / run_name(config)
    require_folder(path)
    log = Log()
    log(f"feedseg {feedseg.__version__}: {config.experiment}, in {path}")
    from feedseg.training import train as training  # brings JAX: the line above comes first

    result = training.run(config, path, log)
    log(f"files: {path}/result.json, metrics.jsonl, curves.png, confusion.png, panel.png")
    return 0 if result["complete"] else 1


def run_name(config) -> str:
    """`config.run_name`; of a user's own data their folder's name stands in it for `folder`."""
    from feedseg import datasets

    if config.data.name != "folder":
        return config.run_name
    data = datasets.find_root("folder", config.data_dir).resolve().name
    rest = config.run_name.removeprefix("folder").lstrip("-")
    return "-".join(filter(None, (data, rest)))


def main() -> None:
    """Entry of `python -m feedseg.main`."""
    large_pages.request()
    signals.watch()
    leave(guarded(train, sys.argv[1:]))


if __name__ == "__main__":
    main()
