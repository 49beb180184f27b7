"""A sweep as a job array through submitit, for people who want to stay in Python.

    pip install -e ".[slurm]"
    python -m launch.submit FILE --time 04:00:00 --partition gpu
    python -m launch.submit FILE --cluster local      # here, all at once, to try it

The same jobs as those of `launch.slurm`, the main way, which needs no extra package. submitit
stores pickles in the folder of logs, which execute code when read: the folder is private (0700).
On SLURM the command returns when the jobs are submitted; watch them with `launch.status`, since
without accounting submitit does not notice killed jobs.
"""

import argparse
import re
import sys
from collections.abc import Sequence

from feedseg.experiments import sweep, trials
from feedseg.runtime.errors import UserError, guarded
from launch import slurm, task


def executor(args: argparse.Namespace):
    """submitit's executor. Raises UserError if it is not installed or finds no SLURM."""
    try:
        import submitit
    except ImportError:
        raise UserError(
            'submitit is not installed: pip install -e ".[slurm]", or use launch.slurm'
        ) from None
    folder = task.log_folder(args.file) / "submitit"
    slurm.make_folder(folder)
    folder.chmod(0o700)
    try:
        made = submitit.AutoExecutor(folder=str(folder), cluster=args.cluster)
    except RuntimeError as error:
        raise UserError(f"submitit: {error}") from None
    made.update_parameters(**parameters(args))
    return made


def parameters(args: argparse.Namespace) -> dict:
    """The resources of the jobs as parameters of submitit."""
    more = {
        "mem": args.mem,
        "requeue": True,
        "signal": f"TERM@{slurm.WARNED_S}",
        **({} if args.gpus == "0" else {"gres": f"gpu:{args.gpus}"}),
        **({"account": args.account} if args.account else {}),
    }
    given = {
        "slurm_partition": args.partition,
        "slurm_array_parallelism": args.concurrent or None,
    }
    return {
        "name": args.file.stem,
        "timeout_min": minutes(args.time),
        "nodes": args.nodes,
        "tasks_per_node": args.tasks_per_node,
        "cpus_per_task": args.cpus,
        "slurm_additional_parameters": more,
        "slurm_srun_args": ["--kill-on-bad-exit=1"],
        **{key: value for key, value in given.items() if value},
    }


def minutes(text: str) -> int:
    """SLURM's time (minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS) in minutes, rounded up."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not match:
        raise UserError(f"--time {text}: minutes, HH:MM:SS or D-HH:MM:SS")
    days, *rest = match.groups()
    numbers = [int(number) for number in rest if number is not None]
    if days is None and len(numbers) < 3:  # minutes, and seconds if there are two
        numbers = [0, *numbers]
    hours, mins, seconds = [*numbers, 0, 0][:3]
    return -(-(int(days or 0) * 86400 + hours * 3600 + mins * 60 + seconds) // 60)


def main(arguments: Sequence[str]) -> int:
    """Submits the sweep; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.submit", description="Submit with submitit."
    )
    slurm.add_options(parser)
    parser.add_argument("--cluster", choices=("slurm", "local"), default="slurm")
    args = parser.parse_args(arguments)
    on_slurm = args.cluster == "slurm"
    if args.collect and not on_slurm:
        raise UserError(f"--collect: a job of SLURM; with --cluster {args.cluster} run it yourself")
    tasks = trials.read_plan(args.file)
    left = slurm.unfinished(tasks, print)
    print(f"{len(tasks) - len(left)} of {len(tasks)} tasks are done")
    made = executor(args)
    specs = [{"file": str(args.file), "index": i, "requeue": on_slurm} for i in left]
    jobs = made.map_array(task.run, specs) if left else []
    if not on_slurm:
        return _wait(jobs)
    array = jobs[0].job_id.partition("_")[0] if jobs else ""
    if array:
        print(f"submitted {len(jobs)} tasks as job {array}; logs: {task.log_folder(args.file)}")
    if args.collect:
        print(f"collecting job: {slurm.submit(slurm.collecting(args, array))}")
    return 0


def _wait(jobs: Sequence) -> int:
    """0 if all tasks are done, 1 if one failed, 75 if one was only stopped."""
    codes = []
    for job in jobs:
        ended = job.result()
        codes.append(ended["code"])
        print(f"task {ended['index']}: exit code {ended['code']}; {ended['log']}")
    if any(code not in (0, *task.AGAIN) for code in codes):
        return 1
    return sweep.AGAIN if any(codes) else 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
