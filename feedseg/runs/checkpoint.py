"""Checkpoints: Orbax below, and what it does not give on top.

Orbax writes a step in the background into a temporary folder and renames it when it is whole, so
a kill never harms an older step. It has no check of the array bytes and no way round a damaged
step. Here every step carries a record (name, shape, type and SHA-256 of each array, and the
trainer's own values); a step that does not match its record is put aside and the next older one
is taken. The state is replicated, so every process sees all of it.
"""

import logging
import re
import shutil
from pathlib import Path

from feedseg.runs import checkpoint_format, orbax_output
from feedseg.runs.checkpoint_format import Damaged
from feedseg.runtime import processes
from feedseg.runtime.errors import SaveFailed, UserError, one_line

_log = logging.getLogger(__name__)
_SAVE_ERRORS = (OSError, ValueError, RuntimeError)  # what a full disk looks like through Orbax


class Checkpoints:
    """The newest `keep` steps of a run, in `folder`. Needs the lock on the run directory.

    One object per folder at a time: a new one removes what a save has begun. As a context it
    closes itself. Raises SaveFailed if the folder cannot be made.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder = Path(folder).absolute()
        self._lost: Exception | None = None  # why the newest step was given up
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._on_first_process(self._finish_replacing)
            self._manager = _manager(self.folder, keep)
        except OSError as error:
            raise SaveFailed(f"cannot write in {self.folder}: {error.strerror or error}") from error

    # Saving -------------------------------------------------------------------------------------

    def save(self, step: int, tree, meta: dict, *, final: bool = False) -> None:
        """Start writing `tree` as `step`; returns when the arrays are copied.

        tree: dict of pytrees of replicated arrays, which the caller may donate at once.
        meta: values for JSON; tuples come back as lists. A step that exists is left if it is
        whole and equal, else replaced; the old one stays until the new one is whole.
        final: wait until it is on the disk.
        If the disk is full, a step is tried twice, then given up with a warning; a final one, and
        any in a run of several processes, raises SaveFailed.
        """
        self._settle()
        host = checkpoint_format.to_host(tree)
        record = checkpoint_format.make_record(host, list(tree), meta)
        for attempt in (1, 2):
            try:
                if not self._has(step, record):
                    self._on_first_process(checkpoint_format.require_room, self.folder, host)
                    self._start(step, host, record)
                if final:
                    self._manager.wait_until_finished()
                self._lost = None
                return
            except _SAVE_ERRORS as error:
                self._lost = error
                self._after_failure(error)
                if final and attempt == 2:
                    raise self._failed(f"step {step}", error) from error
        _log.warning("step %d is not saved; training goes on", step)

    def wait(self) -> None:
        """Return when all is on the disk. Raises SaveFailed if it could not be written."""
        try:
            self._manager.wait_until_finished()
            if self._lost:
                raise self._lost
        except _SAVE_ERRORS as error:
            self._after_failure(error)
            raise self._failed("the newest step", error) from error
        self._on_first_process(self._finish_replacing)

    def close(self) -> None:
        """Wait and end the threads. What could not be written is logged; `wait` would raise.

        Nothing is waited for if the folder is gone, which Orbax's threads may never notice.
        """
        if not self.folder.exists():
            return
        self._settle()
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is None or processes.count() == 1:  # the others may be elsewhere
            self.close()

    def steps(self) -> list[int]:
        """Saved steps, oldest first; not checked for damage."""
        return saved_steps(self.folder)

    def _start(self, step: int, host: dict, record: dict) -> None:
        import orbax.checkpoint as ocp

        self._on_first_process(self._set_aside, step)
        self._manager.reload()
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(checkpoint_format.nest(host)),
            record=ocp.args.JsonSave(record),
        )
        if not self._manager.save(step, args=items, force=True):
            raise RuntimeError(f"Orbax declined to save step {step}")

    def _has(self, step: int, record: dict) -> bool:
        """Whether `step` is on the disk, whole, and equal to `record`."""
        try:
            same = checkpoint_format.load_text(self.folder / str(step)) == record["content"]
            if same:
                checkpoint_format.read(self.folder / str(step))
        except Damaged:
            same = False
        return processes.all_agree(same)

    def _settle(self) -> None:
        """Let the save in progress end; a failure is logged, for the next save is the retry."""
        try:
            self._manager.wait_until_finished()
        except _SAVE_ERRORS as error:
            self._after_failure(error)
        self._on_first_process(self._finish_replacing)

    def _after_failure(self, error: Exception) -> None:
        """Log, remove what was half-written, and let the manager look at the folder again."""
        if processes.count() > 1:  # the others may wait for this one: none can go on alone
            processes.fail(self._failed("a step", error))
        _log.warning("%s: saving failed: %s", self.folder, one_line(error))
        for path in self.folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)
        self._finish_replacing()
        self._manager.reload()

    def _failed(self, what: str, error: Exception) -> SaveFailed:
        kept = f"step {self.steps()[-1]} is kept" if self.steps() else "no step is kept"
        return SaveFailed(
            f"cannot save {what} in {self.folder}: {one_line(error)}; {kept}; free space on that "
            "disk or fix the permissions, then run the same command again"
        )

    def _set_aside(self, step: int) -> None:
        """Make room for a new version of `step` without losing the old one."""
        path = self.folder / str(step)
        if path.exists():
            path.rename(self.folder / f"replaced-{step}")

    def _finish_replacing(self) -> None:
        """Remove old versions whose new ones are whole, bring back those whose are not."""
        for old in self.folder.glob("replaced-*"):
            new = self.folder / old.name.removeprefix("replaced-")
            if new.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(new)

    # Restoring ----------------------------------------------------------------------------------

    def restore_latest(self, abstract_tree) -> tuple[int, object, dict] | None:
        """The newest whole step as (step, tree, meta), or None if there is none.

        abstract_tree: the state as `jax.ShapeDtypeStruct`, with shardings. A damaged step is
        renamed `damaged-<step>-<n>`, with a warning, and the next older one is tried.
        Raises UserError if the arrays are those of another network.
        """
        names = processes.from_first(lambda: [path.name for _, path in _candidates(self.folder)])
        for path in map(self.folder.joinpath, names):
            host, content = {}, {}
            step, problem = int(path.name.rpartition("-")[2]), ""
            try:
                host, content = checkpoint_format.read(
                    path, checkpoint_format.to_flat(abstract_tree)
                )
            except Damaged as error:
                problem = str(error)
            if processes.all_agree(not problem):
                return step, checkpoint_format.place(host, abstract_tree), content["meta"]
            problem = problem or "another process could not read it"
            self._on_first_process(self._put_away, step, path, problem)
            self._manager.reload()
        return None

    def _put_away(self, step: int, path: Path, problem: str) -> None:
        count = 1
        while (target := self.folder / f"damaged-{step}-{count}").exists():
            count += 1
        path.rename(target)
        _log.warning(
            "checkpoint step %d in %s is damaged (%s): renamed %s; trying the next older one",
            *(step, self.folder, problem, target.name),
        )

    # Several processes --------------------------------------------------------------------------

    def _on_first_process(self, action, *args) -> None:
        """Change the folder in one process only, the others waiting."""
        if processes.is_first():
            action(*args)
        processes.all_agree()


def saved_steps(folder: Path) -> list[int]:
    """Steps saved in a folder, oldest first; reads only, not checked for damage."""
    return sorted(step for step, _ in _candidates(Path(folder)))


def read_tree(folder: Path, step: int | None = None) -> tuple[dict, dict]:
    """(tree, meta) of a step, as nested dicts of NumPy arrays; without a step, the newest whole.

    Reads only: it may be used while a run writes. Lists and tuples in the saved state come back
    as dicts with keys "0", "1", ...
    Raises UserError if there is no such step or none is whole.
    """
    folder = Path(folder).absolute()
    found = [item for item in _candidates(folder) if step in (None, item[0])]
    if not found:
        which = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        raise UserError(f"{which} in {folder}: name the directory of a run that has saved one")
    for number, path in found:
        try:
            host, content = checkpoint_format.read(path)
            return {part: {} for part in content["parts"]} | checkpoint_format.nest(host), content[
                "meta"
            ]
        except Damaged as error:
            if not path.exists():  # a running training has replaced it by a newer one
                return read_tree(folder, step)
            _log.warning("checkpoint step %d in %s is damaged: %s", number, folder, error)
    raise UserError(f"no whole checkpoint in {folder}: restore it from a copy or train again")


def _manager(folder: Path, keep: int):
    import orbax.checkpoint as ocp

    class Manager(ocp.CheckpointManager):
        def reached_preemption(self, step: int) -> bool:
            """Asked in signals.py alone; asking with other numbers would break its agreement."""
            return False

    orbax_output.silence()
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    return Manager(folder, options=options)


def _candidates(folder: Path) -> list[tuple[int, Path]]:
    """Steps and their folders, newest first; one set aside counts until its successor is there."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    found = {}
    for prefix in ("replaced-", ""):  # the second takes the place of the first
        for name in names:
            if match := re.fullmatch(prefix + r"(\d+)", name):
                found[int(match[1])] = folder / name
    return sorted(found.items(), reverse=True)
