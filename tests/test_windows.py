"""What Windows lacks is not needed: a process without it. No Windows machine takes part."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
WITHOUT = """
import os, signal, sys
from pathlib import Path

for name in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[name] = None  # import fails
for module, names in (
    (os, ("O_CLOEXEC", "sysconf", "sched_getaffinity", "getuid", "pread", "pwrite", "execve")),
    (signal, ("SIGUSR1", "SIGUSR2", "SIGKILL")),
):
    for name in names:
        delattr(module, name)

held, opened, closed = {}, os.open, os.close

def note(path, *arguments, **options):
    if Path(path).is_dir():
        raise PermissionError(13, "Permission denied", str(path))
    descriptor = opened(path, *arguments, **options)
    held[descriptor] = os.fspath(path)
    return descriptor

def forget(descriptor):
    held.pop(descriptor, None)
    closed(descriptor)

def refuse(method):
    def checked(path, *arguments):
        if os.fspath(path) in held.values():
            raise PermissionError(13, "The process cannot access the file", str(path))
        return method(path, *arguments)
    return checked

os.open, os.close = note, forget
for name in ("replace", "rename", "unlink"):  # of files that are open
    setattr(Path, name, refuse(getattr(Path, name)))
"""
PREDICT = """
import numpy as np, pytest, tifffile
from tests.support.fake_model import bright, stand_in
from feedseg.inference import predict
from feedseg.inference.outputs.instances import InstanceSpec
from feedseg.io import images
from feedseg.runs import directory, lock
from feedseg.runtime import signals

folder = Path(sys.argv[1])
(folder / "in").mkdir()
tifffile.imwrite(folder / "in" / "a.tif", np.zeros((40, 30), np.uint8))
with pytest.MonkeyPatch.context() as patch:
    stand_in(patch)
    options = dict(overlay=True, tables=True, instances=InstanceSpec("bright"), progress=False)
    predict.predict(folder / "run", folder / "in", folder / "out", **options)
    options["probabilities"] = "uint8"
    predict.predict(folder / "run", folder / "in", folder / "out", overwrite=True, **options)
    assert predict.predict(folder / "run", folder / "in", folder / "out", **options) == []
with lock.WorkdirLock(folder / "run"), signals.Stop() as stop:
    assert not stop.requested()
"""


def test_prediction_and_locks_without_what_windows_lacks(tmp_path):
    here = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    command = [sys.executable, "-c", WITHOUT + PREDICT, str(tmp_path)]
    done = subprocess.run(command, env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "has no locks" in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "a_classes.csv",
        "a_instances.csv",
        "a_instances.tif",
        "a_labels.tif",
        "a_objects.csv",
        "a_overlay.png",
        "a_probabilities.tif",
        "feedseg-predict.jsonl",
    }
