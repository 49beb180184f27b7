"""A sweep as a SLURM job array, one task per index.

    python -m launch.slurm FILE --dry-run                       # print the script, submit nothing
    python -m launch.slurm FILE --time 04:00:00 --partition gpu --mem 32G --concurrent 8 \\
        --collect "feedseg reproduce fbu-t1 --collect"
    python -m launch.slurm FILE --nodes 2 --tasks-per-node 4 --gpus 4   # each run on 8 processes

Run it in the checkout, on a file system shared by all nodes. Finished tasks are not submitted. A
run that is preempted or reaches its time limit saves, is requeued and continues. The collecting job
runs after the array whether or not it succeeded (`afterany`), and its table lists missing runs;
with `afterok` a single failed run would leave a job that never starts.
"""

import argparse
import itertools
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from feedseg.experiments import sweep, trials
from feedseg.runtime import files
from feedseg.runtime.errors import UserError, guarded
from launch.task import log_folder

_TEMPLATE = Path(__file__).with_name("slurm.sbatch")
WARNED_S = 120  # time for a run to save before the limit


def add_options(parser: argparse.ArgumentParser) -> None:
    """Resources of a job, for every launcher that submits one."""
    parser.add_argument("file", type=Path, metavar="FILE", help="file of a sweep")
    parser.add_argument("--time", default="04:00:00", help="time limit of a job (04:00:00)")
    parser.add_argument("--partition", help="partition to submit to")
    parser.add_argument("--account", help="account to charge")
    parser.add_argument("--gpus", default="1", help="GPUs per node: 1, a100:2; 0 for none (1)")
    parser.add_argument("--cpus", type=int, default=8, help="CPUs per process (8)")
    parser.add_argument("--mem", default="32G", help="memory per node (32G)")
    parser.add_argument("--nodes", type=int, default=1, help="nodes per run (1)")
    parser.add_argument("--tasks-per-node", type=int, default=1, help="processes per node (1)")
    parser.add_argument("--concurrent", type=int, default=0, help="most concurrent jobs (0: any)")
    parser.add_argument("--collect", default="", metavar="COMMAND", help="run at the end")


def main(arguments: Sequence[str]) -> int:
    """Submits the sweep; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.slurm", description="Submit a job array."
    )
    add_options(parser)
    parser.add_argument("--sbatch-arg", action="append", default=[], help="--sbatch-arg=--qos=low")
    parser.add_argument("--dry-run", action="store_true", help="print the script, submit nothing")
    args = parser.parse_args(arguments)
    tasks = trials.read_plan(args.file)
    left = unfinished(tasks, print, touch=not args.dry_run)
    print(f"{len(tasks) - len(left)} of {len(tasks)} tasks are done")
    folder = log_folder(args.file)
    path = folder / "array.sbatch"
    script = fill(args, left)
    if args.dry_run:
        if left:
            print(f"{script}\n# {shlex.join(['sbatch', '--parsable', str(path)])}")
        if args.collect:
            print(f"# {shlex.join(collecting(args, 'ARRAY' if left else ''))}")
        return 0
    array = ""
    make_folder(folder)
    if left:
        files.write_text_atomic(path, script)
        array = submit(["sbatch", "--parsable", str(path)])
        print(f"submitted {len(left)} tasks as job {array}; logs: {folder}")
    if args.collect:
        print(f"collecting job: {submit(collecting(args, array))}")
    if left:
        print(f"watch it with: python -m launch.status {args.file} --watch 10")
    return 0


def unfinished(
    tasks: Sequence[trials.Task], say: Callable[[str], None], touch: bool = True
) -> list[int]:
    """Numbers of the unfinished tasks; touch: as in `sweep.missing`."""
    left = sweep.missing(tasks, say, touch)
    return [index for index, runs in enumerate(left) if runs]


def fill(args: argparse.Namespace, indices: Sequence[int]) -> str:
    """The script of the array."""
    most = f"%{args.concurrent}" if args.concurrent else ""
    options = [
        f"--job-name={args.file.stem}",
        f"--array={ranges(indices)}{most}",
        f'--output="{log_folder(args.file)}/slurm-%A_%a.txt"',
        "--open-mode=append",
        "--requeue",
        f"--signal=TERM@{WARNED_S}",
        f"--time={args.time}",
        f"--nodes={args.nodes}",
        f"--ntasks-per-node={args.tasks_per_node}",
        f"--cpus-per-task={args.cpus}",
        f"--mem={args.mem}",
        *([] if args.gpus == "0" else [f"--gres=gpu:{args.gpus}"]),
        *_charged(args),
        *args.sbatch_arg,
    ]
    text = _TEMPLATE.read_text("utf-8")
    text = text.replace("@OPTIONS@", "\n".join(f"#SBATCH {option}" for option in options))
    text = text.replace("@PYTHON@", shlex.quote(sys.executable))
    return text.replace("@FILE@", shlex.quote(str(args.file)))


def _charged(args: argparse.Namespace) -> list[str]:
    chosen = {"partition": args.partition, "account": args.account}
    return [f"--{key}={value}" for key, value in chosen.items() if value]


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as SLURM writes them: 0-3,7."""
    runs = []
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        runs.append(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]))
    return ",".join(runs)


def collecting(args: argparse.Namespace, array: str) -> list[str]:
    """The command that submits the collecting job, after an array if one is named."""
    folder = log_folder(args.file)
    return [
        "sbatch",
        "--parsable",
        *([f"--dependency=afterany:{array}"] if array else []),
        f"--job-name={args.file.stem}-collect",
        f"--output={folder}/collect.txt",
        "--open-mode=truncate",
        *_charged(args),
        f"--wrap={args.collect}",
    ]


def make_folder(folder: Path) -> None:
    """The folder of logs. Raises UserError if it cannot be created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created ({error.strerror})") from None


def submit(command: Sequence[str]) -> str:
    """Number of the submitted job. Raises UserError with SLURM's reason if it is refused."""
    if not shutil.which(command[0]):
        raise UserError(
            f"{command[0]} not found: run the command on a node of the cluster; --dry-run prints "
            "what would be submitted"
        )
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise UserError(f"{command[0]}: {' '.join(ended.stderr.split()) or ended.returncode}")
    return ended.stdout.strip().partition(";")[0]


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
