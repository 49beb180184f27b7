"""The released weights of AEP, read into the networks here, give what the released networks give.

Once against a NumPy version of them and once, where PyTorch is installed, against a PyTorch one.
"""

import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from tests.support.aep_weights import from_torch
from tests.support.networks import FAST_COMPILE, batch, build, compiled

# Against NumPy ----------------------------------------------------------------------------------

LAYERS = {  # name: kind, input and output channels of the released network
    "conv1": ("same", 1, 32),
    "conv2": ("down", 32, 64),
    "conv3": ("same", 64, 64),
    "conv4": ("down", 64, 64),
    "conv5": ("same", 64, 64),
    "conv6": ("down", 64, 128),
    "conv7": ("same", 128, 128),
    "deconv1": ("up", 256, 64),
    "conv8": ("same", 64, 64),
    "deconv2": ("up", 128, 32),
    "conv9": ("same", 32, 32),
    "deconv3": ("up", 96, 16),
    "conv10": ("same", 16, 16),
}


def norm_name(name: str) -> str:
    return name.replace("deconv", "bnde") if "deconv" in name else name.replace("conv", "bn")


def released(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Arrays as the released code saves them for one network with two classes."""
    state = {}
    for name, (kind, inputs, outputs) in LAYERS.items():
        size = 3 if kind == "same" else 4
        pair = (inputs, outputs) if kind == "up" else (outputs, inputs)
        fan_in = inputs * (4 if kind == "up" else size**2)
        state[f"{name}.weight"] = rng.normal(size=(*pair, size, size)) * math.sqrt(2 / fan_in)
        state[f"{name}.bias"] = rng.normal(size=outputs) * 0.1
        norm = norm_name(name)
        state[f"{norm}.weight"] = rng.uniform(0.5, 1.5, outputs)
        state[f"{norm}.bias"] = rng.normal(size=outputs) * 0.1
        state[f"{norm}.running_mean"] = rng.normal(size=outputs) * 0.1
        state[f"{norm}.running_var"] = rng.uniform(0.5, 1.5, outputs)
        state[f"{norm}.num_batches_tracked"] = np.array(7)
    state["conv_f.weight"] = rng.normal(size=(2, 16, 1, 1)) * 0.3
    state["conv_f.bias"] = rng.normal(size=2) * 0.1
    return state


def convolve(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """[C, H, W] with [F, C, k, k], padding 1."""
    size = weight.shape[-1]
    windows = sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (size, size), (1, 2))
    return np.einsum("chwab,fcab->fhw", windows[:, ::stride, ::stride], weight, optimize=True)


def spread(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Transposed convolution [C, h, w] with [C, F, 4, 4], stride 2, padding 1."""
    _, height, width = x.shape
    total = np.zeros((weight.shape[1], 2 * height + 2, 2 * width + 2))
    for i, j in itertools.product(range(height), range(width)):
        total[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.tensordot(x[:, i, j], weight, 1)
    return total[:, 1:-1, 1:-1]


def normalize(x: np.ndarray, state: dict, name: str) -> np.ndarray:
    """Batch normalization in evaluation mode."""
    mean, var, scale, bias = (
        state[f"{name}.{key}"][:, None, None]
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def reference_net(state: dict, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and penultimate map [C, H, W] of the released network in evaluation mode."""
    kept = {}
    for name, (kind, _, _) in LAYERS.items():
        if kind == "up":
            skip = {"deconv1": "conv6", "deconv2": "conv4", "deconv3": "conv2"}[name]
            x = spread(np.concatenate([x, kept[skip]]), state[f"{name}.weight"])
        else:
            x = convolve(x, state[f"{name}.weight"], 2 if kind == "down" else 1)

        x = normalize(x + state[f"{name}.bias"][:, None, None], state, norm_name(name))
        x = kept[name] = np.maximum(x, 0)
    logits = np.tensordot(state["conv_f.weight"][:, :, 0, 0], x, 1)
    return logits + state["conv_f.bias"][:, None, None], x


def reference(states: tuple[dict, dict, dict], image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits [K, H, W] and filters [S, H, W] of the released network for an image [H, W]."""
    first, penultimate = reference_net(states[0], image[None])
    filters = penultimate[:2]
    maps = [first]
    maps += [reference_net(states[1], 1 / (1 + np.exp(-(image + f)))[None])[0] for f in filters]
    weights = states[2]["conv1.weight"].reshape(-1, 1, 1, 1)
    return (weights * np.stack(maps)).sum(0) + states[2]["conv1.bias"], filters


@pytest.fixture(scope="module")
def states() -> tuple[dict, dict, dict]:
    rng = np.random.default_rng(0)
    ensemble = {"conv1.weight": rng.normal(size=(1, 3, 1, 1, 1)), "conv1.bias": rng.normal(size=1)}
    return released(rng), released(rng), ensemble


def test_released_weights_give_the_released_networks_output(states):
    image = jnp.asarray(np.random.default_rng(0).random((1, 16, 16, 1)), jnp.float32)
    model = build("aep", penultimate=16)
    variables = from_torch(*states)
    expected = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, expected)
    forward = jax.jit(lambda v, x: model.apply(v, x, train=False), compiler_options=FAST_COMPILE)
    logits, out = forward(variables, image)
    logits_expected, filters = reference(states, np.asarray(image[0, ..., 0], np.float64))
    assert filters.std() > 0.1
    np.testing.assert_allclose(out["filters"][0], filters.transpose(1, 2, 0), atol=1e-4)
    np.testing.assert_allclose(logits[0], logits_expected.transpose(1, 2, 0), atol=1e-4)


def test_a_missing_array_is_named(states):
    first, second, ensemble = states
    incomplete = {key: value for key, value in second.items() if key != "bn3.running_mean"}
    with pytest.raises(KeyError, match=r"bn3\.running_mean"):
        from_torch(first, incomplete, ensemble)


# Against PyTorch --------------------------------------------------------------------------------


@pytest.fixture
def torch_pair():
    """The released network in PyTorch with statistics of its own, and its variables here."""
    torch = pytest.importorskip("torch")
    from benchmarks import peers

    torch.manual_seed(0)
    other = peers.aep.Aep(2, penultimate=2, dropout=0.0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for _ in range(3):
            other(torch.rand(2, 1, 16, 16))
    states = (part.state_dict() for part in (other.net1, other.net2, other.ensemble))
    copies = ({key: value.numpy().copy() for key, value in state.items()} for state in states)
    return torch, peers, other, from_torch(*copies)


def as_torch(torch, image):
    return torch.from_numpy(np.array(image).transpose(0, 3, 1, 2))


def test_aep_evaluates_as_in_pytorch(torch_pair):
    torch, _, other, variables = torch_pair
    model, _, evaluate = compiled("aep")
    image, _ = batch(model)
    (logits, out), _ = evaluate(variables, image)
    with torch.no_grad():
        expected, members, filters = other.eval()(as_torch(torch, image))
    assert float(filters.std()) > 0.01
    np.testing.assert_allclose(logits, expected.permute(0, 2, 3, 1), atol=1e-4)
    np.testing.assert_allclose(out["members"], members.permute(1, 0, 3, 4, 2), atol=1e-4)
    np.testing.assert_allclose(out["filters"], filters.permute(0, 2, 3, 1), atol=1e-4)


def test_aep_trains_as_in_pytorch(torch_pair):
    """Loss, gradients and running means of one step, with network 2 called once per filter."""
    torch, peers, other, variables = torch_pair
    model, train, _ = compiled("aep")
    image, labels = batch(model)
    (loss, _, _, stats), gradients = train(variables, image, labels, jax.random.key(0))
    target = torch.from_numpy(np.array(labels)).long()
    expected = peers.loss(other.train(), as_torch(torch, image), target)
    expected.backward()
    assert abs(float(loss) - expected.item()) < 1e-4
    for name, net in (("network1", other.net1), ("network2", other.net2)):
        for layer in ("conv1", "conv6", "conv10"):
            got = gradients[name][layer]["conv"]["kernel"].transpose(3, 2, 0, 1)
            assert_close(got, getattr(net, layer).weight.grad)
            mean = getattr(net, net.norm_name(layer)).running_mean
            np.testing.assert_allclose(stats[name][layer]["norm"]["mean"], mean, atol=1e-5)
        got = gradients[name]["deconv2"]["conv"]["kernel"].transpose(2, 3, 0, 1)
        assert_close(got, net.deconv2.weight.grad)
    assert_close(gradients["awel"]["weights"], other.ensemble.conv1.weight.grad.reshape(-1))


def assert_close(got, expected) -> None:
    """The difference is below a thousandth of the whole."""
    expected = expected.numpy()
    assert np.linalg.norm(got - expected) < 1e-3 * np.linalg.norm(expected)
