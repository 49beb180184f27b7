"""Random crops of whole images, drawn on the device for every step.

Where a crop lies follows from (seed, step) alone, as all randomness of a training. Scaled, turned
and distorted crops are taken from the whole image: their corners show what is there.
"""

from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from feedseg.datasets.common.dataset import VOID, Dataset
from feedseg.io import normalize
from feedseg.runtime.errors import UserError
from feedseg.training import augment
from feedseg.training.step import Batch

Array = jax.Array
PLACES = 4096  # of each class, around which crops lie
MOST_PIXELS = 2**31 - 1  # a flat index is an int32


@flax.struct.dataclass
class CropItems:
    """Whole images of a training split, one after the other.

    pixels [P, C] raw; labels [P]; maps: [P] by name; starts [N]: where each image begins; sizes
    [N, 2]: height and width; low, high [N] or [N, C]; places [1 + k, M]: positions of labeled
    pixels, then of those of each of k classes; seed: int32 scalar; class_weights: [K];
    side: of a crop, px; class_share: of the crops that lie around a class.
    """

    pixels: Array
    labels: Array
    maps: dict[str, Array]
    starts: Array
    sizes: Array
    low: Array
    high: Array
    places: Array
    seed: Array
    class_weights: Array
    side: int = flax.struct.field(pytree_node=False)
    class_share: float = flax.struct.field(pytree_node=False)

    def chosen(self, step: Array, size: int) -> Array:
        """Images of a step, [size]."""
        return self.corners(step, size)[0]

    def corners(self, step: Array, size: int) -> tuple[Array, Array, Array]:
        """Image, first row and first column of the crops of a step, [size] each.

        A crop holds a pixel drawn from `places` at any of its own pixels; it lies within the image
        where that is large enough, else around it.
        """
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), step), 1)
        keys = jax.random.split(key, 4)
        rows, most = self.places.shape
        kind = jax.random.randint(keys[0], (size,), 1, rows)
        kind = jnp.where(jax.random.bernoulli(keys[1], self.class_share, (size,)), kind, 0)
        place = self.places[kind, jax.random.randint(keys[2], (size,), 0, most)]
        item = jnp.searchsorted(self.starts, place, side="right") - 1
        within = place - self.starts[item]
        height, width = self.sizes[item].T
        shift = jax.random.randint(keys[3], (2, size), 0, self.side)
        top = _inside(within // width - shift[0], height - self.side)
        return item, top, _inside(within % width - shift[1], width - self.side)

    def batch(self, step: Array, key: Array, size: int, options, place: Callable) -> Batch:
        """Crops [size, side, side, C] in [0, 1], their labels and maps, as `TrainItems.batch`.

        Outside of an image it is mirrored, and its label void.
        """
        item, top, left = self.corners(step, size)
        y = (top[:, None] + jnp.arange(self.side))[:, :, None]
        x = (left[:, None] + jnp.arange(self.side))[:, None, :]
        if augment.moves(options):
            place_key = jax.random.split(key, 3)[1]
            field = augment.displacement(place_key, (size, self.side, self.side), options)
            taken = self._between(item, y + field[:, 0], x + field[:, 1])
        else:
            taken = self._at(item, y, x)
        image, labels, maps = jax.tree.map(place, taken)
        return augment.augment(key, image, labels, options, maps, moved=True)

    def _at(self, item: Array, y: Array, x: Array) -> Batch:
        """Values at whole pixels; y, x: that give [B, S, S] together."""
        height, width = (n[:, None, None] for n in self.sizes[item].T)
        place = self.starts[item][:, None, None] + _mirrored(y, height) * width
        place = place + _mirrored(x, width)
        image = normalize.apply(self.pixels[place], self.low[item], self.high[item], jnp)
        outside = (y < 0) | (y >= height) | (x < 0) | (x >= width)
        labels = jnp.where(outside, VOID, self.labels[place])
        return image, labels, {name: values[place] for name, values in self.maps.items()}

    def _between(self, item: Array, y: Array, x: Array) -> Batch:
        """Images and maps by linear interpolation, labels of the nearest pixel; y, x: [B, S, S]."""
        low_y, low_x = jnp.floor(y), jnp.floor(x)
        image, maps = 0.0, dict.fromkeys(self.maps, 0.0)
        for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
            corner = (low_y + down).astype(int), (low_x + across).astype(int)
            weight = jnp.abs(1 - down - (y - low_y)) * jnp.abs(1 - across - (x - low_x))
            value, _, value_maps = self._at(item, *corner)
            image = image + weight[..., None] * value
            maps = {name: maps[name] + weight * value_maps[name] for name in maps}
        _, labels, _ = self._at(item, jnp.round(y).astype(int), jnp.round(x).astype(int))
        return image, labels, maps


def _inside(first: Array, room: Array) -> Array:
    """The first row (or column) of a crop; room: px that the image is larger, or less than 0."""
    return jnp.where(room < 0, room // 2, jnp.clip(first, 0, jnp.maximum(room, 0)))


def _mirrored(index: Array, size: Array) -> Array:
    """Index of the pixel at `index` of an image that is mirrored at the centers of its edges."""
    period = jnp.maximum(2 * (size - 1), 1)
    folded = jnp.abs(index) % period
    return jnp.minimum(folded, period - folded) * (size > 1)


def items(
    dataset: Dataset, index: np.ndarray, seed: int, class_weights: np.ndarray, class_share: float
) -> CropItems:
    """The training split of a data set of whole images, on the host.

    Raises UserError if it has more pixels than an index can count.
    """
    images, labels = ([field[item] for item in index] for field in (dataset.images, dataset.labels))
    counts = [label.size for label in labels]
    if sum(counts) > MOST_PIXELS:
        raise UserError(
            f"{sum(counts):,} px of training images, at most {MOST_PIXELS:,} can be held: leave "
            "some out, or cut them with data.crops=grid"
        )
    starts = np.cumsum([0, *counts[:-1]]).astype(np.int32)
    return CropItems(
        pixels=np.concatenate([image.reshape(-1, image.shape[-1]) for image in images]),
        labels=np.concatenate([label.ravel() for label in labels]),
        maps={
            name: np.concatenate([values[item].ravel() for item in index])
            for name, values in dataset.maps.items()
        },
        starts=starts,
        sizes=np.asarray([label.shape for label in labels], np.int32),
        low=dataset.low[index],
        high=dataset.high[index],
        places=places(labels, starts, dataset.num_classes, seed),
        seed=np.int32(seed),
        class_weights=np.asarray(class_weights, np.float32),
        side=dataset.crop,
        class_share=float(class_share),
    )


def places(
    labels: Sequence[np.ndarray], starts: np.ndarray, num_classes: int, seed: int
) -> np.ndarray:
    """Flat positions drawn from the labeled pixels, then from those of each class that is there,
    int32 [1 + k, `PLACES`].
    """
    rng = np.random.default_rng(seed)
    totals = np.stack([np.bincount(label.ravel(), minlength=VOID + 1) for label in labels])
    present = np.flatnonzero(totals[:, :num_classes].sum(0))
    rows = [_drawn(rng, labels, starts, totals[:, :VOID].sum(1), lambda label: label != VOID)]
    for number in present:
        rows.append(
            _drawn(rng, labels, starts, totals[:, number], lambda label, k=number: label == k)
        )
    return np.stack(rows).astype(np.int32)


def _drawn(rng, labels, starts, counts: np.ndarray, wanted: Callable) -> np.ndarray:
    """`PLACES` of the wanted pixels, with equal chances; counts: how many each image has."""
    shares = rng.multinomial(PLACES, counts / counts.sum())
    found = []
    for label, start, share in zip(labels, starts, shares, strict=True):
        if share:
            own = np.flatnonzero(wanted(label).ravel())
            found.append(start + rng.choice(own, share))
    return np.concatenate(found)


def steps_per_epoch(pixels: int, validated: int, side: int, batch: int) -> int:
    """Steps whose crops have as many pixels as the training images, or more.

        max(P / (B S^2), 10/3 V / (B S^2)), rounded up

    P: pixels of the training images; V: pixels that the network sees in validation. Where one of
    these costs a third of one in training, a forward pass without its backward pass, validation
    takes a tenth of the training's time at most. B, S: crops of a step, and their side.
    """
    return int(np.ceil(max(pixels, 10 / 3 * validated, 1) / (batch * side**2)))
