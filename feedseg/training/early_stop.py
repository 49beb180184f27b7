"""Ending a run before its last epoch: patience with the validation score, and callbacks."""

from collections.abc import Callable, Sequence

from feedseg.runtime import processes

Callback = Callable[[dict], object]  # of an epoch's row; True ends the run


def waited(meta: dict, score: float) -> int:
    """Epochs since the validation mean IoU was higher than ever before; NaN is not higher.

    meta: the notes on the run before the epoch with this score.
    """
    return 0 if score > meta["best_miou"] else meta["waited"] + 1


def reason(row: dict, waiting: int, patience: int, callbacks: Sequence[Callback]) -> str:
    """Why the run ends with the epoch of this row; empty: it goes on.

    waiting: epochs without a better validation; patience: how many are too many, 0: any number
    is allowed. All callbacks are called, each with its own copy of the row, and of several
    processes in process 0 alone; what one raises is the caller's.
    """
    answers = processes.from_first(lambda: [bool(each(dict(row))) for each in callbacks])
    if patience and waiting >= patience:
        epochs = f"{waiting} epoch" if waiting == 1 else f"{waiting} epochs"
        return f"no better validation for {epochs}"
    return "a callback asked for it" if any(answers) else ""
