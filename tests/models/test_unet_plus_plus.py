"""UNet++ against a plain NumPy reading of its equations, in float64 with the same weights."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from feedseg import models
from tests.models.test_convlstm import same_conv
from tests.support.layer_checks import both
from tests.support.networks import NARROW, build, finite_reach, random_variables

EPSILON = 1e-5
FORMS = ("torch", "keras", "zju")


def pool(x: np.ndarray, side: int = 2) -> np.ndarray:
    n, h, w, c = x.shape
    return x.reshape(n, h // side, side, w // side, side, c).max((2, 4))


def bilinear(x: np.ndarray, factor: int, align_corners: bool) -> np.ndarray:
    """Linear interpolation along one axis, then along the other."""
    for axis in (1, 2):
        size, wanted = x.shape[axis], factor * x.shape[axis]
        i = np.arange(wanted)
        place = i * (size - 1) / (wanted - 1) if align_corners else (i + 0.5) / factor - 0.5
        x = np.apply_along_axis(
            lambda line, p=place: np.interp(p, np.arange(len(line)), line), axis, x
        )
    return x


def nearest(x: np.ndarray, factor: int) -> np.ndarray:
    return x.repeat(factor, 1).repeat(factor, 2)


def transposed(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Every input pixel adds its stamp, two output pixels from its neighbor's."""
    size, (n, h, w, _) = kernel.shape[0], x.shape
    border = (size - 2) // 2
    y = np.zeros((n, 2 * h + 2 * border, 2 * w + 2 * border, kernel.shape[-1]))
    for a, b in np.ndindex(size, size):
        y[:, a : a + 2 * h : 2, b : b + 2 * w : 2] += x @ kernel[a, b]
    return y[:, border : border + 2 * h, border : border + 2 * w]


class Layers:
    """The layers of a network by their names, with its weights, in float64.

    train: normalize by the batch instead of the running statistics.
    """

    def __init__(self, variables: dict, train: bool = False):
        self.flat = {
            path: np.asarray(leaf, np.float64)
            for path, leaf in flax.traverse_util.flatten_dict(variables, sep="/").items()
        }
        self.train = train

    def conv(self, x: np.ndarray, name: str) -> np.ndarray:
        kernel = self.flat[f"params/{name}/kernel"]
        bias = self.flat.get(f"params/{name}/bias", 0)
        if len(kernel) == 2:  # stride 2, blocks of 2x2
            n, h, w, c = x.shape
            blocks = x.reshape(n, h // 2, 2, w // 2, 2, c)
            return np.einsum("nhawbc,abcf->nhwf", blocks, kernel) + bias
        return (x @ kernel[0, 0] if len(kernel) == 1 else same_conv(x, kernel)) + bias

    def up_conv(self, x: np.ndarray, name: str) -> np.ndarray:
        return transposed(x, self.flat[f"params/{name}/kernel"]) + self.flat[f"params/{name}/bias"]

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        mean, var = (self.flat[f"batch_stats/{name}/{each}"] for each in ("mean", "var"))
        if self.train:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        scale, bias = (self.flat[f"params/{name}/{each}"] for each in ("scale", "bias"))
        return (x - mean) / np.sqrt(var + EPSILON) * scale + bias

    def conv_norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return self.norm(self.conv(x, f"{name}/conv"), f"{name}/norm")

    def unit(self, x: np.ndarray, name: str) -> np.ndarray:
        return np.maximum(self.conv_norm(x, name), 0)

    def pair(self, x: np.ndarray, block: str) -> np.ndarray:
        return self.unit(self.unit(x, f"{block}_conv1"), f"{block}_conv2")


def assert_near(found, expected) -> None:
    """Equal to 1e-5 of the largest number."""
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))


def random_image(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).random(shape).astype(np.float32)


def check_network(model, expected, run) -> None:
    """expected(layers, image) -> (logits, out) in NumPy."""
    image = random_image(2, 2 * model.stride, 3 * model.stride, 1)
    variables = random_variables(model, image.shape)
    forward = run(lambda v, x: model.apply(v, x, train=False))
    logits, out = forward(variables, jnp.asarray(image))
    wanted_logits, wanted = expected(Layers(variables), image.astype(np.float64))
    assert set(out) == set(wanted)
    assert_near(logits, wanted_logits)
    for name in wanted:
        assert_near(out[name], wanted[name])


# UNet++ ------------------------------------------------------------------------------------------


def expected_of(form: str, levels: int, deep_supervision: bool):
    def node(layers: Layers, x, name: str, column: int):
        if form == "torch" or (form == "zju" and column == 0):
            return layers.pair(x, name)
        for index in (1, 2):
            x = np.maximum(layers.conv(x, f"{name}_conv{index}"), 0)
        return x

    def up(layers: Layers, below, name: str):
        return bilinear(below, 2, True) if form == "torch" else layers.up_conv(below, f"{name}_up")

    def network(layers: Layers, image):
        maps = {}
        for j in range(levels):
            for i in range(levels - j):
                if j == 0:
                    x = pool(maps[i - 1, 0]) if i else image
                else:
                    row = [maps[i, k] for k in range(j)]
                    above = up(layers, maps[i + 1, j - 1], f"x{i}_{j}")
                    x = np.concatenate([*row, above] if form == "torch" else [above, *row], -1)
                maps[i, j] = node(layers, x, f"x{i}_{j}", j)
        if not deep_supervision:
            return layers.conv(maps[0, levels - 1], "classifier"), {}
        heads = np.stack([layers.conv(maps[0, j], f"head{j}") for j in range(1, levels)])
        return heads.mean(0) if form == "zju" else heads[-1], {"heads": heads}

    return network


@both
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_network_equals_its_equations(form, deep_supervision, run):
    filters = (3, 4, 5, 6) if run is jax.jit else (3, 4, 5)
    model = build(
        "unet_plus_plus", 3, form=form, filters=filters, deep_supervision=deep_supervision
    )
    check_network(model, expected_of(form, len(filters), deep_supervision), run)


def names_of(form: str, **changes) -> set[str]:
    model = build("unet_plus_plus", 2, form=form, filters=(2, 3), **changes)
    return set(flax.traverse_util.flatten_dict(random_variables(model, (1, 4, 4, 1)), sep="/"))


def test_normalizations_are_where_the_form_has_them():
    normalized = {form: {n for n in names_of(form) if "norm/mean" in n} for form in FORMS}
    assert len(normalized["torch"]) == 6
    assert not normalized["keras"]
    column0 = {f"batch_stats/x{i}_0_conv{k}/norm/mean" for i in (0, 1) for k in (1, 2)}
    assert normalized["zju"] == column0


def test_heads_of_one_column_each_replace_the_classifier():
    names = names_of("torch", deep_supervision=True)
    assert "params/head1/kernel" in names and "params/classifier/kernel" not in names


@pytest.mark.parametrize("form", FORMS)
def test_dropout_after_every_relu(form):
    """With rate 1/2 the kept values are doubled; the logits then differ from key to key."""
    model = build("unet_plus_plus", 2, form=form, filters=(3, 4), dropout=0.5)
    image = random_image(1, 8, 8, 1)
    variables = random_variables(model, image.shape)

    @jax.jit
    def logits(key):
        rngs = {"dropout": key}
        return model.apply(variables, image, train=True, mutable=["batch_stats"], rngs=rngs)[0][0]

    first, again, other = (logits(jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    shown = jax.make_jaxpr(lambda: model.apply(variables, image, train=False))
    assert "random" not in str(shown())


def test_dropout_rate(monkeypatch):
    """Two in every node, with the rate that was asked for."""
    asked = []

    def keep_all(key, shape, rate):
        asked.append((shape, rate))
        return jnp.ones(shape, bool)

    monkeypatch.setattr("feedseg.models.layers.blocks.keep_mask", keep_all)
    model = build("unet_plus_plus", 2, form="keras", filters=(3, 4), dropout=0.25)
    image = random_image(1, 4, 4, 1)
    variables = random_variables(model, image.shape)
    rngs = {"dropout": jax.random.key(0)}
    jax.eval_shape(lambda v: model.apply(v, image, train=True, rngs=rngs), variables)
    top, below = ((1, 4, 4, 3), 0.25), ((1, 2, 2, 4), 0.25)
    assert asked == [top, top, below, below, top, top]  # X(0, 0), X(1, 0), X(0, 1)


def initial(model, names: str) -> list[np.ndarray]:
    """Some of the initial parameters; the compiler leaves out the others and the network."""
    image = jnp.zeros((1, model.stride, model.stride, 1))

    @jax.jit
    def start(key):
        params = model.init(key, image, train=False)["params"]
        flat = flax.traverse_util.flatten_dict(params, sep="/")
        return [flat[name] for name in names.split()]

    return [np.asarray(value) for value in start(jax.random.key(0))]


def test_initial_numbers():
    """Bounds and standard deviations by form, on kernels with enough numbers to tell."""
    models_ = {f: build("unet_plus_plus", 2, form=f, filters=(32, 64)) for f in FORMS}
    fan_in = 9 * 64
    kernel, scale = initial(models_["torch"], "x1_0_conv2/conv/kernel x1_0_conv2/norm/scale")
    assert 0.95 < np.abs(kernel).max() * fan_in**0.5 <= 1
    np.testing.assert_array_equal(scale, 1)
    wanted = pytest.approx((2 / fan_in) ** 0.5, rel=0.03)
    names = "x1_0_conv2/kernel x0_1_up/kernel classifier/bias"
    kernel, up, bias = initial(models_["keras"], names)
    assert kernel.std() == wanted
    assert np.abs(kernel).max() < 2.3 * kernel.std()  # truncated
    assert 0.95 < np.abs(up).max() / (6 / (4 * (32 + 64))) ** 0.5 <= 1
    assert not bias.any()
    kernel, scale = initial(models_["zju"], "x1_0_conv2/conv/kernel x1_0_conv2/norm/scale")
    assert kernel.std() == wanted
    assert np.abs(kernel).max() > 3 * kernel.std()
    assert scale.mean() == pytest.approx(1, abs=0.02) and 0.01 < scale.std() < 0.03


def test_whole_image_where_the_sampling_points_depend_on_its_size():
    """align_corners: a crop's pixel far from all borders changes with the crop."""
    image = random_image(1, 64, 64, 1)
    for form in FORMS:
        model = build("unet_plus_plus", 2, form=form, filters=(2, 3))
        variables = random_variables(model, image.shape)
        forward = jax.jit(lambda v, x, m=model: m.apply(v, x, train=False)[0])
        whole = forward(variables, image)[:, 24:40, 24:40]
        crop = forward(variables, image[:, 8:, 8:])[:, 16:32, 16:32]
        assert model.halo <= 16
        assert model.whole_image == (np.abs(whole - crop).max() > 1e-4)


@pytest.mark.parametrize("levels", [2, 4])
@pytest.mark.parametrize("form", FORMS)
def test_halo(form, levels):
    model = build("unet_plus_plus", form=form, filters=(2,) * levels)
    assert model.halo - model.stride < finite_reach(model) <= model.halo


def test_wrong_arguments():
    for changes, message in ((dict(form="tf"), "choose torch"), (dict(filters=(4,)), "2 levels")):
        model = build("unet_plus_plus", **changes)
        with pytest.raises(ValueError, match=message):
            model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)), train=False)


def test_narrow_has_a_node_between():
    """The contract tests see a node that joins two others of its row."""
    assert len(NARROW["unet_plus_plus"]["filters"]) >= 3
    assert models.build(2, common.model("unet_plus_plus")).stride == 16
