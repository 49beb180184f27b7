"""Checkpoints survive kills, full disks and damaged files, or say so."""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from feedseg.runs.checkpoint import Checkpoints, read_tree, saved_steps
from feedseg.runtime.errors import SaveFailed, UserError
from feedseg.runtime.files import json_row, to_json, truncate_jsonl, write_json_atomic

# Threads of Orbax complain after an error that is handled here.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

META = {"epoch": 1, "best_miou": 0.5, "history": [1.0, float("inf")]}


def state(number: int, width: int = 64):
    """A small training state whose values say which step it is.

    Arrays of more than 100 bytes lie in files of their own, where Orbax checks nothing.
    """
    rng = np.random.default_rng(number)
    kernel = rng.normal(size=(4, width)).astype(np.float32)
    params = {"conv1": {"kernel": jnp.asarray(kernel)}, "scale": jnp.ones(3, jnp.bfloat16) * number}
    return {
        "step": jnp.int32(number),
        "params": params,
        "noise": jnp.asarray(rng.integers(2**32, size=256, dtype=np.uint32)),
        "batch_stats": {},
        "totals": {"loss": jnp.float32(number), "loss/final": jnp.float32(-number)},
        "opt_state": optax.adam(1e-3).init(params),
    }


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def equal(a, b) -> bool:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(
        x.dtype == y.dtype and np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def write_steps(folder: Path, *steps: int, keep: int = 3) -> None:
    with Checkpoints(folder, keep) as saved:
        for step in steps:
            saved.save(step, state(step), {**META, "epoch": step})
        saved.wait()


def restore(folder: Path):
    with Checkpoints(folder, 3) as saved:
        return saved.restore_latest(abstract(state(0)))


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    write_steps(folder, 1, 2)
    return folder


@pytest.fixture
def copy(two_steps, tmp_path):
    return Path(shutil.copytree(two_steps, tmp_path / "checkpoints"))


def test_empty_folder_has_nothing_to_restore(tmp_path):
    assert restore(tmp_path / "checkpoints") is None


def test_round_trip_and_retention(tmp_path):
    write_steps(tmp_path, 1, 2, 3, keep=2)
    saved = Checkpoints(tmp_path, 2)
    assert saved.steps() == [2, 3]
    step, tree, meta = saved.restore_latest(abstract(state(0)))
    saved.close()
    assert step == 3
    assert equal(tree, state(3))
    assert meta == {**META, "epoch": 3}


def test_restores_with_the_sharding_asked_for(copy):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    wanted = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=wanted), state(0)
    )
    saved = Checkpoints(copy, 3)
    _, tree, _ = saved.restore_latest(target)
    saved.close()
    assert all(leaf.sharding == wanted for leaf in jax.tree.leaves(tree))
    bumped = jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), donate_argnums=0)(tree)
    np.testing.assert_array_equal(
        bumped["params"]["conv1"]["kernel"], state(2)["params"]["conv1"]["kernel"] + 1
    )


def test_read_tree_gives_numpy_and_changes_nothing(copy):
    before = sorted((p, p.stat().st_mtime_ns) for p in copy.rglob("*"))
    tree, meta = read_tree(copy)
    assert sorted((p, p.stat().st_mtime_ns) for p in copy.rglob("*")) == before
    assert isinstance(tree["params"]["conv1"]["kernel"], np.ndarray)
    np.testing.assert_array_equal(
        tree["params"]["conv1"]["kernel"], state(2)["params"]["conv1"]["kernel"]
    )
    assert tree["batch_stats"] == {}
    assert tree["opt_state"]["0"]["mu"]["scale"].shape == (3,)
    assert meta["epoch"] == 2
    assert read_tree(copy, step=1)[1]["epoch"] == 1


def test_read_tree_takes_the_newest_whole_step(copy):
    flip(copy / "2" / "record" / "metadata", 100)
    tree, meta = read_tree(copy)
    assert (tree["step"], meta["epoch"]) == (1, 1)
    assert (copy / "2").exists(), "reading must not rename"
    with pytest.raises(UserError, match="no whole checkpoint"):
        read_tree(copy, step=2)


def test_read_tree_names_a_folder_without_checkpoints(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint in .*nowhere"):
        read_tree(tmp_path / "nowhere")


# Damage -----------------------------------------------------------------------------------------


def flip(path: Path, position: int) -> None:
    """Turn one bit of a byte round."""
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << (position % 8)
    path.write_bytes(content)


def harmless(folder: Path) -> bool:
    """Restoring gives step 2 or step 1, with exactly its values."""
    step, tree, meta = restore(folder)
    assert step in (1, 2)
    assert equal(tree, state(step))
    assert meta == {**META, "epoch": step}
    return step == 2


def array_files(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "state").rglob("d/*") if p.is_file())


def test_flipped_bits_never_give_wrong_values(copy, tmp_path):
    rng = random.Random(0)
    names = [p.relative_to(copy) for p in sorted((copy / "2").rglob("*")) if p.stat().st_size]
    files = [name for name in names if (copy / name).is_file()]
    for number in range(50):
        damaged = Path(shutil.copytree(copy, tmp_path / str(number)))
        flip(damaged / files[number % len(files)], rng.randrange(10**6))
        harmless(damaged)


def test_a_flipped_bit_in_an_array_is_noticed(copy, caplog):
    """In the bytes of the array itself, which Orbax gives back without complaint."""
    noise = np.asarray(state(2)["noise"]).tobytes()  # does not compress, so it lies there as it is
    [place] = [path for path in array_files(copy / "2") if noise in path.read_bytes()]
    flip(place, place.read_bytes().find(noise) + 77)
    assert not harmless(copy)
    assert "step 2" in caplog.text and "damaged-2-1" in caplog.text
    assert "the bytes of noise do not match their digest" in caplog.text
    assert (copy / "damaged-2-1").is_dir() and not (copy / "2").exists()


@pytest.mark.parametrize("part", [0.0, 0.9])
def test_truncated_files_never_give_wrong_values(copy, tmp_path, part):
    files = [p.relative_to(copy) for p in sorted((copy / "2").rglob("*")) if p.is_file()]
    older = 0
    for number, name in enumerate(files):
        damaged = Path(shutil.copytree(copy, tmp_path / str(number)))
        content = (damaged / name).read_bytes()
        (damaged / name).write_bytes(content[: int(len(content) * part)])
        older += not harmless(damaged)
    assert older >= 3  # the record, the manifest, the data


def test_missing_files_and_empty_steps_fall_back(copy):
    (copy / "3").mkdir()
    shutil.rmtree(copy / "2" / "state")
    assert not harmless(copy)
    assert {p.name for p in copy.glob("damaged-*")} == {"damaged-2-1", "damaged-3-1"}


def test_all_damaged_is_as_none(copy):
    for step in ("1", "2"):
        (copy / step / "record" / "metadata").unlink()
    assert restore(copy) is None
    write_steps(copy, 2)
    assert harmless(copy)


def test_another_network_is_refused_not_put_aside(copy):
    other = state(0, width=8)
    other["params"]["extra"] = jnp.zeros(2)
    saved = Checkpoints(copy, 3)
    with pytest.raises(UserError) as error:
        saved.restore_latest(abstract(other))
    saved.close()
    message = str(error.value)
    assert str(copy) in message and "\n" not in message
    assert "params/conv1/kernel is float32[4, 64], not float32[4, 8]" in message
    assert "params/extra is absent" in message
    assert error.value.exit_code == 2
    assert saved.steps() == [1, 2]


# Writing again ----------------------------------------------------------------------------------


def test_saving_an_equal_step_again_leaves_it(copy):
    before = (copy / "2").stat().st_mtime_ns
    saved = Checkpoints(copy, 3)
    saved.save(2, state(2), {**META, "epoch": 2}, final=True)
    saved.close()
    assert (copy / "2").stat().st_mtime_ns == before


def test_saving_other_values_replaces_the_step(copy):
    saved = Checkpoints(copy, 3)
    saved.save(2, state(7), META, final=True)
    saved.wait()
    assert saved.steps() == [1, 2]
    saved.close()
    assert not list(copy.glob("replaced-*"))
    assert equal(restore(copy)[1], state(7))


def test_saving_over_a_damaged_equal_step_mends_it(copy):
    for path in array_files(copy / "2"):
        path.write_bytes(b"")
    saved = Checkpoints(copy, 3)
    saved.save(2, state(2), {**META, "epoch": 2}, final=True)
    saved.close()
    assert harmless(copy)


def test_a_kill_while_replacing_keeps_the_old_version(copy):
    (copy / "2").rename(copy / "replaced-2")
    assert read_tree(copy)[1]["epoch"] == 2
    assert harmless(copy)
    assert (copy / "2").exists() and not (copy / "replaced-2").exists()


def test_temporary_folders_are_removed_at_the_start(copy):
    left = copy / "3.orbax-checkpoint-tmp" / "state"
    left.mkdir(parents=True)
    assert restore(copy)[0] == 2
    assert not left.parent.exists()


def test_buffers_may_be_donated_right_after_save(tmp_path):
    advance = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    tree = {"params": {"w": jnp.zeros((512, 512))}}
    saved = Checkpoints(tmp_path, 8)
    for step in range(6):
        saved.save(step, tree, {})
        old, tree = tree, advance(tree)
        for _ in range(3):
            tree = advance(tree)
        assert old["params"]["w"].is_deleted(), "the buffer was not donated: nothing is tested"
    saved.wait()
    saved.close()
    for step in range(6):
        assert (read_tree(tmp_path, step)[0]["params"]["w"] == 4 * step).all()


# Other processes --------------------------------------------------------------------------------

FULL_DISK = """
import resource, sys
import jax.numpy as jnp, numpy as np
from feedseg.runs.checkpoint import Checkpoints
from feedseg.runtime.errors import SaveFailed

def tree(step):
    return {"w": jnp.asarray(np.random.default_rng(step).normal(size=(300, 300)))}

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

saved = Checkpoints(sys.argv[1], 3)
saved.save(1, tree(1), {}, final=True)
limit(50_000)
saved.save(2, tree(2), {})
saved.save(3, tree(3), {})
try:
    saved.wait()
except SaveFailed:
    print("not saved")
limit(resource.RLIM_INFINITY)
saved.save(4, tree(4), {})
saved.wait()
print(saved.steps())
limit(50_000)
try:
    saved.save(5, tree(5), {}, final=True)
except SaveFailed as error:
    print(error)
    print(saved.steps())
    saved.close()
    sys.exit(error.exit_code)
"""


def test_full_disk_keeps_whole_steps_and_ends_with_73(tmp_path):
    folder = tmp_path / "checkpoints"
    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK, folder], capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 73, child.stderr
    waited, steps, message, after = child.stdout.splitlines()
    assert waited == "not saved"
    assert steps == after == "[1, 4]"
    assert str(folder) in message and "step 4 is kept" in message and "free space" in message
    assert child.stderr.count("saving failed") >= 3  # 2, 3 and 5
    assert not list(folder.glob("*tmp*")), "what was half-written takes up the room that is missing"
    expected = np.random.default_rng(4).normal(size=(300, 300)).astype(np.float32)
    np.testing.assert_array_equal(read_tree(folder)[0]["w"], expected)


SAVE_FOR_EVER = """
import signal, sys
signal.alarm(60)
import jax.numpy as jnp
from feedseg.runs.checkpoint import Checkpoints

saved = Checkpoints(sys.argv[1], 2)
found = saved.restore_latest({"w": jnp.zeros((256, 1024))})
step = found[0] if found else 0
assert found is None or (found[1]["w"] == step).all()
print(step, flush=True)
while True:
    step += 1
    saved.save(step, {"w": jnp.full((256, 1024), step, jnp.float32)}, {"step": step})
    saved.save(step, {"w": jnp.full((256, 1024), step, jnp.float32)}, {"step": step, "again": 1})
"""


def test_sigkill_while_saving_keeps_the_newest_whole_step(tmp_path):
    rng = random.Random(1)
    reached = 0
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", SAVE_FOR_EVER, tmp_path], stdout=subprocess.PIPE, text=True
        ) as child:
            start = int(child.stdout.readline())
            assert start >= reached, "a step that had been whole is lost"
            assert not list(tmp_path.glob("damaged-*")), "a kill must not damage a step"
            while child.poll() is None and max(saved_steps(tmp_path), default=0) < start + 2:
                time.sleep(0.01)  # however slow the machine, it has to get somewhere
            time.sleep(rng.uniform(0.0, 0.3))
            child.kill()
        tree, meta = read_tree(tmp_path)
        reached = meta["step"]
        assert (tree["w"] == reached).all()
    assert reached > 4


# Small files ------------------------------------------------------------------------------------


def test_json_is_replaced_whole(tmp_path):
    path = tmp_path / "result.json"
    write_json_atomic(path, {"miou": np.float32(0.5), "iou": np.array([1.0, np.nan]), "path": path})
    assert json.loads(path.read_text()) == {"miou": 0.5, "iou": [1.0, None], "path": str(path)}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    assert "NaN" not in to_json([float("nan")])


def test_unwritable_json_is_save_failed(tmp_path):
    path = tmp_path / "missing" / "result.json"
    with pytest.raises(SaveFailed, match=str(path)):
        write_json_atomic(path, {})


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_json_atomic(path, {"old": 1})
    code = (
        "import resource, sys; from feedseg.runtime.files import write_json_atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_json_atomic(sys.argv[1], {'new': 'x' * 100_000})"
    )
    child = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert "SaveFailed" in child.stderr and "File too large" in child.stderr
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_lines_that_are_no_plain_object_are_no_rows():
    deep = b"[" * 10**5 + b"]" * 10**5
    for line in (b"[]\n", b"1\n", b"{\n", b'{"a": 1}', b'{"a": ' + deep + b"}\n", b"\xff\n"):
        assert json_row(line) is None
    assert json_row(b'{"a": 1}\n') == {"a": 1}


def test_truncate_jsonl_drops_torn_and_later_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert truncate_jsonl(path, bool) == 0
    rows = [f'{{"epoch":{epoch},  "loss": 0.10}}\n' for epoch in (1, 2, 3)]
    path.write_text("".join(rows) + '{"epoch":4, "lo')
    assert truncate_jsonl(path, lambda row: row["epoch"] <= 2) == 2
    assert path.read_text() == "".join(rows[:2])
    path.write_text("".join(rows) + "garbage\n[1]\n" + rows[2].strip())
    assert truncate_jsonl(path, lambda row: True) == 3
    assert path.read_text() == "".join(rows)
