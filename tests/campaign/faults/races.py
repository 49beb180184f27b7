"""Commands that write the same folder at once, and one that reads what another writes."""

import shutil

from tests.campaign import materials, process, tasks
from tests.campaign.outcome import judged, wrong


def attempt(rng, folder):
    kinds = (_same_model, _other_model, _eight, _trainings, _reports)
    return rng.choice(kinds)(rng, folder)


def _problem(ended) -> str:
    return next(filter(None, (each.problem() for each in ended)), "")


def _same_model(rng, folder):
    """Each file is right, and so is the folder after one more run."""
    out = tasks.PREDICT.output(folder)
    ended = process.together([tasks.PREDICT.command(out)] * 2)
    problem = _problem(ended) or tasks.PREDICT.problem(out, complete=False)
    did = f"two equal predictions at once, exit codes {[each.code for each in ended]}"
    return judged(problem or tasks.PREDICT.finish(out), did)


def _other_model(rng, folder):
    """All files are of one of the models, unless the other was refused."""
    out, models = folder / "out", (tasks.run(), tasks.other_run())
    ended = process.together([tasks.predict_arguments(out, model=model) for model in models])
    codes = [each.code for each in ended]
    did = f"predictions of two models into one folder at once, exit codes {codes}"
    if problem := _problem(ended):
        return wrong(f"{did}: {problem}")
    wanted = [materials.made_once(_labels, model) for model in models]
    for path in sorted(out.glob("*_labels.tif")):
        if path.read_bytes() not in [(each / path.name).read_bytes() for each in wanted]:
            return wrong(f"{did}: {path.name} is of neither model")
    if codes == [0, 0]:
        return wrong(f"{did}: both say that they have written all of it")
    for code, labels in zip(codes, wanted, strict=True):
        if code == 0 and (problem := _labels_differ(labels, out)):
            return wrong(f"{did}: {problem}, said the one that ended with 0")
    return judged("" if 0 in codes else "none of them has done it", did)


def _labels(model):
    out = materials.folder() / f"labels of {model.parent.name} {model.name}"
    if process.python(*tasks.predict_arguments(out, model=model)).code:
        raise materials.Unprepared("the prediction fails undisturbed")
    return out


def _labels_differ(wanted, out) -> str:
    for path in sorted(wanted.glob("*_labels.tif")):
        found = out / path.name
        if not found.exists() or found.read_bytes() != path.read_bytes():
            return f"{path.name} is not that of its model"
    return ""


def _eight(rng, folder):
    """Into folders of their own."""
    outs = [tasks.PREDICT.output(folder / str(number)) for number in range(8)]
    ended = process.together([tasks.PREDICT.command(out) for out in outs], limit_s=240)
    problems = (tasks.PREDICT.problem(out) for out in outs)
    return judged(_problem(ended) or next(filter(None, problems), ""), "eight predictions at once")


def _trainings(rng, folder):
    """One trains, the other is refused with 69, or shows the finished run."""
    out = tasks.TRAIN.output(folder)
    ended = process.together([tasks.TRAIN.command(out)] * 2)
    codes = sorted(each.code for each in ended)
    did = f"two trainings in one folder at once, exit codes {codes}"
    problem = _problem(ended) or ("" if codes in ([0, 69], [0, 0]) else "one has to train")
    return judged(problem or tasks.TRAIN.problem(out), did)


def _reports(rng, folder):
    """Reports of a folder of runs while one of them trains."""
    out = tasks.TRAIN.output(folder / "runs")
    shutil.copytree(tasks.other_run(), folder / "runs" / "other")
    delay = rng.uniform(0, 5)
    report = ["-m", "feedseg.cli", "report", folder / "runs", "--output", folder / "report"]
    wait = f"import time; time.sleep({delay}); import runpy, sys; sys.argv[0] = 'feedseg'; "
    late = ["-c", wait + "runpy.run_module('feedseg.cli', run_name='__main__')", *report[2:]]
    ended = process.together([tasks.TRAIN.command(out), late, report])
    did = f"reports at 0 and {delay:.1f} s while a run trains, codes {[e.code for e in ended]}"
    return judged(_problem(ended) or tasks.TRAIN.problem(out), did)
