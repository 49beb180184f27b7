"""The comparisons with PyTorch: its networks are ours, and what is measured is what is printed."""

import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import common
from feedseg import models
from tests.support import tiny
from tests.support.networks import FAST_COMPILE, random_variables, shapes_of

torch = pytest.importorskip("torch")

from benchmarks import area, compare, epoch, measure, peers, sides, torch_side  # noqa: E402
from benchmarks.peers import feedback_unet, ru_net, train, unet, unet_plus_plus  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """PyTorch's threads wait for one another, which takes long beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# The networks ---------------------------------------------------------------------------------


def count(name: str, classes: int) -> int:
    variables = shapes_of(models.build(classes, common.model(name)), (1, 16, 16, 1))[1]
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("name", peers.NETWORKS)
@pytest.mark.parametrize("classes", (2, 4))
def test_as_many_parameters_as_feedseg(name, classes):
    with torch.device("meta"):
        network = peers.build(name, classes)
    assert sum(each.numel() for each in network.parameters()) == count(name, classes)


def test_all_networks_of_the_comparison_have_a_peer():
    assert list(peers.NETWORKS) == list(sides.CONFIGS)


@pytest.mark.parametrize("name", peers.NETWORKS)
def test_every_peer_takes_a_step_with_its_channels_last(name):
    case = sides.Case("step", name, 2, 16, "float32")
    kernels = [each for each in torch_side._torch_network(case).parameters() if each.dim() == 4]
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in kernels)
    run = torch_side.side(case, compiled=False).run
    assert 0 < run() < 50


def flat(variables: dict) -> dict[str, np.ndarray]:
    """Parameters and statistics by PyTorch's names for them."""
    words = {"scale": "weight", "kernel": "weight", "mean": "running_mean", "var": "running_var"}
    found = {}
    for tree in variables.values():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            *place, kind = (key.key for key in path if key.key != "round")
            name, value = ".".join((*place, words.get(kind, kind))), np.asarray(leaf)
            if kind.endswith("kernel"):
                order = (2, 3, 0, 1) if place[-1].endswith("_up") else (3, 2, 0, 1)
                value = value.transpose(order)
            if place[-1].endswith("_norm"):  # a normalization for each round
                layer, _, word = name.rpartition(".")
                found |= {f"{layer}.{t}.{word}": row for t, row in enumerate(value)}
            else:
                found[name] = value
    for name in [each for each in found if each.endswith(".recurrent_kernel")]:
        weight = name.replace("recurrent_kernel", "weight")
        found[weight] = np.concatenate([found[weight], found.pop(name)], 1)
    return found


def fill(network, variables: dict) -> None:
    state = {key: torch.from_numpy(value.copy()) for key, value in flat(variables).items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing)


NARROW = {  # levels with the network's own rules: dropout, memory, a second node in a row
    "unet": (unet.Unet, dict(filters=(4, 6, 8))),
    "ru_net": (ru_net.RuNet, dict(filters=(4, 6))),
    "unet_plus_plus": (unet_plus_plus.UnetPlusPlus, dict(filters=(3, 4, 5))),
    "feedback_unet": (feedback_unet.FeedbackUnet, dict(filters=(3, 4, 5))),
}


@pytest.mark.parametrize("name", NARROW)
def test_equal_weights_give_equal_logits(name):
    kind, changes = NARROW[name]
    model = models.build(3, common.model(name, **changes))
    variables = random_variables(model, (1, 16, 16, 1))
    image = np.random.default_rng(1).random((2, 16, 24, 1), np.float32)
    forward = jax.jit(lambda v, x: model.apply(v, x, train=False)[0], compiler_options=FAST_COMPILE)
    expected = np.asarray(forward(variables, image))
    network = kind(3, **changes)
    fill(network, variables)
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(image.transpose(0, 3, 1, 2)))
    assert expected.std() > 0.1
    np.testing.assert_allclose(logits.permute(0, 2, 3, 1), expected, atol=1e-4)


def test_loss_counts_earlier_maps_by_their_weight():
    network = feedback_unet.FeedbackUnet(2, filters=(3, 4), dropout=0.0)
    image, labels = torch.rand(1, 1, 8, 8), torch.ones(1, 8, 8, dtype=torch.long)
    network.eval()
    first, last = (torch.nn.functional.cross_entropy(m, labels) for m in network.maps(image))
    assert torch.isclose(peers.loss(network, image, labels), 0.5 * first + last)


# Measuring ------------------------------------------------------------------------------------


def test_calls_take_turns_and_the_median_counts():
    calls = []
    pauses = iter((0.0, 0.0, 0.3, 0.03, 0.3, 0.3, 0.3, 0.03))  # warm up, then (not timed, timed)

    def slow():
        calls.append("slow")
        time.sleep(next(pauses))

    found = measure.in_turns({"slow": slow, "quick": lambda: calls.append("quick")}, repeats=3)
    turns = ["slow", "quick", "quick", "slow", "slow", "quick"]
    assert calls[4:] == [name for name in turns for _ in range(2)]
    assert 0.03 <= found["slow"] < 0.2 and found["quick"] < 0.01


PEAK = """
import numpy as np
from benchmarks import measure
def need():
    for _ in range(3):
        np.ones(40 * measure.MIB, np.uint8)
print(measure.resident_peak_mib(need))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_what_a_call_needed_at_once():
    """In a process of its own: one that has freed memory before would use that again."""
    command = [sys.executable, "-c", PEAK]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tiny.ROOT)
    assert float(done.stdout) == pytest.approx(40, abs=8), done.stderr


def test_limits_of_the_device_are_plausible():
    found = measure.limits("bfloat16", matrix=128, copied_mib=1, repeats=1)
    assert 1e7 < found["peak_flop_per_s"] < 1e16 and 1e7 < found["peak_bytes_per_s"] < 1e14


def test_a_case_measured_again_takes_its_old_place(tmp_path, capsys):
    line = measure.Lines(tmp_path / "cases.json", ("network", "side"))
    for side, value in ((64, 1.0), (128, 2.0), (64, 3.0000001)):
        line(network="unet", side=side, value=value)
    printed = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [each["value"] for each in printed] == [1, 2, 3]
    kept = json.loads((tmp_path / "cases.json").read_text())
    assert kept == [printed[2], printed[1]]


def test_useful_operations_by_hand():
    """The first level of a U-Net: what a level adds to another is that of its convolutions."""
    case = sides.Case("forward", "unet", 2, 32, "float32")
    filters, pixels, expected = unet.FILTERS, 2 * 32 * 32, 0
    for level, width in enumerate(filters):
        before = filters[level - 1] if level else 1
        here = pixels // 4**level
        expected += here * 9 * (before * width + width * width)
        if level < len(filters) - 1:
            deep = filters[level + 1]
            expected += here // 4 * 4 * deep * width  # up
            expected += here * 9 * (2 * width * width + width * width)
    expected += pixels * filters[0] * case.classes
    assert torch_side.useful_flops(case) == 2 * expected
    step = torch_side.useful_flops(case._replace(case="step"))
    assert 2.5 < step / torch_side.useful_flops(case) < 3


# Comparisons ----------------------------------------------------------------------------------

TINY = str(Path(tiny.__file__))


@pytest.fixture
def small(monkeypatch):
    limits = {"peak_flop_per_s": 1e9, "peak_bytes_per_s": 1e9}
    monkeypatch.setattr(measure, "limits", lambda: limits)
    monkeypatch.setitem(sides.CONFIGS, "unet", TINY)  # PyTorch's remains as it is


@pytest.mark.parametrize("kind", ("step", "forward"))
def test_a_case_has_times_ratio_memory_and_shares(small, kind):
    case = sides.Case(kind, "unet", 2, 16, "float32")
    row = compare.compare(case, ["eager"], repeats=1)
    times = row["seconds"]
    assert row["ratio"]["eager"] == times["eager"] / times["feedseg"]
    assert row["images_per_s"]["feedseg"] == 2 / times["feedseg"]
    expected = row["useful_gflop"] / times["eager"]
    assert row["share_of_peak_flops"]["eager"] == pytest.approx(expected)
    assert row["compile_s"].keys() == {"feedseg"}
    json.dumps(measure.rounded(row))


def test_a_peer_that_cannot_be_compiled_is_told(small, monkeypatch):
    def fail(*_):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", fail)
    row = compare.compare(sides.Case("forward", "unet", 1, 16, "float32"), ["compiled"], 1)
    assert row["compiled_failed"] == "RuntimeError: no compiler" and row["ratio"] == {}


def test_linearity_is_the_spread_of_the_time_per_pixel():
    rows = area.linearity({64: 0.0005, 128: 0.0012, 256: 0.0048, 512: 0.0192})
    assert rows["ns_per_px"][128] == pytest.approx(0.0012 / 128**2 * 1e9)
    per_pixel = rows["ns_per_px"]
    assert rows["relative"][64] == pytest.approx(per_pixel[64] / per_pixel[256])
    assert rows["linear_from_px"] == 128


# The same training in PyTorch -----------------------------------------------------------------


@pytest.fixture
def stack(tmp_path):
    """Two sections of 64 px as the ssTEM data set has them."""
    import tifffile
    from PIL import Image

    rng = np.random.default_rng(0)
    root = tmp_path / "sstem_vnc" / "stack1"
    for folder in ("raw", "membranes", "mitochondria", "synapses"):
        (root / folder).mkdir(parents=True)
    for number in range(2):
        image = rng.integers(256, size=(64, 64), dtype=np.uint8)
        tifffile.imwrite(root / "raw" / f"{number:02d}.tif", image)
        for folder in ("membranes", "mitochondria", "synapses"):
            mask = (rng.random((64, 64)) < 0.3).astype(np.uint8) * 255
            Image.fromarray(mask).save(root / folder / f"{number:02d}.png")
    return root


def test_pytorch_reads_the_same_crops_and_splits_them_alike(stack):
    from feedseg import datasets
    from feedseg.datasets.common import splits

    config = common.base()
    config.data.update(name="sstem", crop_size=16)
    config.split.update(scheme="random", counts=(20, 6, 6))
    config.data_dir = str(stack.parents[1])
    data = datasets.load(config)
    images, labels = train.read(stack, 16)
    np.testing.assert_array_equal(images, data.images[..., 0])
    np.testing.assert_array_equal(labels, data.labels)
    for own, theirs in zip(
        train.split(len(images), (20, 6, 6)), splits.split(data, config.split), strict=True
    ):
        np.testing.assert_array_equal(np.sort(own), theirs)


def test_pytorch_turns_image_and_labels_alike():
    image = torch.arange(8 * 9).reshape(8, 1, 3, 3).float()
    torch.manual_seed(0)
    turned, labels = train.turned(image, image[:, 0])
    assert torch.equal(turned[:, 0], labels)
    assert torch.equal(turned.sum((1, 2, 3)), image.sum((1, 2, 3)))
    assert not torch.equal(turned, image)


def test_pytorch_trains_and_writes_its_scores(stack, tmp_path):
    options = ["--data", str(stack), "--workdir", str(tmp_path / "run"), "--epochs", "2"]
    train.main([*options, "--crop", "16", "--counts", "8", "4", "4", "--batch", "4"])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(result["val_miou"]) == 2 and 0 <= result["test"]["miou"] <= 1
    assert len(result["test"]["iou"]) == 4


def test_scores_of_pytorch_are_those_of_feedseg():
    from feedseg.evaluation import metrics

    matrix = np.random.default_rng(0).integers(1, 50, (4, 4))
    assert train.iou(torch.from_numpy(matrix)) == pytest.approx(metrics.iou(matrix).tolist())


# The epoch ------------------------------------------------------------------------------------


def test_overhead_of_an_epoch(tmp_path):
    """A real short run: its epochs take at least their steps, and its parts are told apart."""
    config = [f"--config={TINY}", "--config.train.epochs=2"]
    row = epoch.overhead(config, tmp_path)
    assert row["steps"] == 4 and row["step_s"] > 0 and row["epoch_s"] > 0
    assert row["overhead"] == pytest.approx(row["epoch_s"] / (4 * row["step_s"]))
    assert row["overhead_without_validation"] < row["overhead"]


def test_first_step_of_a_fresh_process(tmp_path):
    found = epoch.first_step([f"--config={TINY}"], tmp_path / "cache")
    assert found["total_s"] >= found["imports_s"] + found["compile_and_step_s"]
    assert any((tmp_path / "cache").iterdir())
