"""What the faults of files share: several reads in the worker must agree, or refuse alike."""

from pathlib import Path

from tests.campaign import worker
from tests.campaign.outcome import Outcome, refused, survived, wrong


def agreed(call: str, path: Path, did: str) -> Outcome:
    """`call` of the worker reads `path` several times; the answers are the same or all refusals."""
    answer = worker.ask(call, path=str(path))
    if answer.problem:
        return wrong(f"{did}: {answer.problem}")
    reads = answer.value
    refusals = [each for each in reads if each.startswith("refused: ")]
    if len(refusals) == len(reads):
        return refused(did)
    if len(set(reads)) > 1:
        told = refusals[0] if refusals else "other pixels"
        return wrong(f"{did}: reads differ: {told:.200}")
    return survived(did)


def command(arguments: list, did: str, lines: int = 1, **limits) -> tuple[Outcome, dict]:
    """A command in the worker: judged by its code and its words; and code, out, err.

    lines: of error that it may have, where each of several images has one.
    """
    answer = worker.ask("command", arguments=[str(each) for each in arguments], **limits)
    if answer.problem:
        return wrong(f"{did}: {answer.problem}"), {}
    if answer.refused:
        return wrong(f"{did}: not caught: {answer.refused}"), {}
    end = answer.value
    told = [line for line in end["err"].split("\n") if line.startswith("feedseg: ")]
    errors = [line for line in told if not line.startswith(("feedseg: note", "feedseg: warning"))]
    if end["code"] not in (0, 2, 65, 69, 73, 75):
        return wrong(f"{did}: exit code {end['code']}: {end['err'][-200:]}"), end
    if len(errors) > lines:
        return wrong(f"{did}: {len(errors)} lines of error: {' | '.join(errors)[:300]}"), end
    if not end["code"]:
        return survived(did), end
    return (refused(did) if end["err"] else wrong(f"{did}: refused without a word")), end
