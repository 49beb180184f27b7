"""Scores and pictures of the items of a split: test-time augmentation, cells, masks, panels."""

import dataclasses

import jax
import numpy as np
import scipy

from feedseg.datasets.common.dataset import VOID, Dataset, pad_to
from feedseg.evaluation import metrics, rand_scores
from feedseg.inference import rotation, segment, tiling
from feedseg.inference.trained import JaxPredictor, dihedral_mean
from feedseg.io import normalize
from feedseg.io.colors import composite


def dihedral_matrices(
    predictor: JaxPredictor, dataset: Dataset, chosen: np.ndarray, batch: int
) -> np.ndarray:
    """Confusion matrix of each chosen item with dihedral tta, int64 [N, K, K]."""
    averaged, parts = dihedral_mean(predictor), []
    for start in range(0, len(chosen), batch):
        index = chosen[start : start + batch]
        filled = np.resize(index, batch)  # one shape, one compilation
        predicted = averaged.apply(normalized(dataset, filled)).argmax(-1)[: len(index)]
        parts.append(
            metrics.confusion_per_image(dataset.labels[index], predicted, dataset.num_classes)
        )
    return np.concatenate([np.asarray(part) for part in parts]).astype(np.int64)


def rotation_matrices(
    predictor: JaxPredictor, dataset: Dataset, chosen: np.ndarray, count: int
) -> np.ndarray:
    """Confusion matrix of each chosen item averaged over `count` rotations, int64 [N, K, K]."""

    def network(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        if predictor.window:
            layout = segment.tiles_for(predictor, height, width)
        else:  # at once
            layout = tiling.plan(
                height, width, max(height, width), predictor.halo, predictor.stride
            )
        return tiling.apply_tiled(image, predictor.apply, layout)

    parts = []
    for item in chosen:
        image = normalized(dataset, item)
        predicted = rotation.mean(network, image, count).argmax(-1)[None]
        truth = dataset.labels[item][None]
        parts.append(metrics.confusion_per_image(truth, predicted, dataset.num_classes))
    return np.concatenate([np.asarray(part) for part in parts]).astype(np.int64)


def panel_rows(predictor: JaxPredictor, dataset: Dataset, chosen: np.ndarray) -> list[dict]:
    """Pictures of some items by name: input, truth, label maps, outputs of the network, result.

    Entries of the network's `out` that hold logits become label maps, others images.
    """
    image = normalized(dataset, chosen)
    logits, out = jax.tree.map(np.asarray, predictor.outputs(image))
    rows = []
    for n, item in enumerate(chosen):
        row = {"input": picture(image[n])}
        row["truth"] = dataset.labels[item].astype(np.int32)
        row |= {name: values[item] for name, values in sorted(dataset.maps.items())}
        row |= _pictures(out, n)
        row["final"] = logits[n].argmax(-1).astype(np.int32)
        rows.append(row)
    return rows


def shown(dataset: Dataset) -> Dataset:
    """The data set as pictures of one size: of whole images their centers, `crop` px wide."""
    if not dataset.crop:
        return dataset

    def center(array: np.ndarray, **options) -> np.ndarray:
        side = dataset.crop
        top, left = (max(0, (n - side) // 2) for n in array.shape[:2])
        return pad_to(array[top : top + side, left : left + side], side, side, **options)

    return dataclasses.replace(
        dataset,
        images=np.stack([center(image, mode="symmetric") for image in dataset.images]),
        labels=np.stack([center(label, constant_values=VOID) for label in dataset.labels]),
        maps={name: np.stack([*map(center, each)]) for name, each in dataset.maps.items()},
        crop=0,
    )


def normalized(dataset: Dataset, index: int | np.ndarray) -> np.ndarray:
    """Images of a data set as the network takes them, [..., H, W, C] float32 in [0, 1]."""
    return normalize.apply(dataset.images[index], dataset.low[index], dataset.high[index])


def evenly(index: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` evenly spaced entries of an index, from the first to the last."""
    positions = np.linspace(0, len(index) - 1, min(count, len(index)))
    return index[np.unique(positions.round().astype(int))]


def picture(image: np.ndarray) -> np.ndarray:
    """An image [H, W, C] for a panel: gray [H, W], or RGB [H, W, 3]."""
    if image.shape[-1] == 1:
        return image[..., 0]
    return image if image.shape[-1] == 3 else composite(image)


def _pictures(out: dict[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    """Named pictures of item `n` from a network's extra outputs, at most 3 of a kind."""
    row = {}
    if "first" in out:
        row["network 1"] = out["first"][n].argmax(-1).astype(np.int32)
    if "filters" in out:
        for i in range(min(3, out["filters"].shape[-1])):
            row[f"filter {i + 1}"] = out["filters"][n, ..., i].astype(np.float32)
    if "translated" in out:
        for i, image in enumerate(out["translated"][:3]):
            row[f"translated {i + 1}"] = picture(image[n].astype(np.float32))
    if "edge" in out:
        row["edges"] = scipy.special.expit(out["edge"][n, ..., 0].astype(np.float32))
        row["Canny"] = out["canny"][n, ..., 0].astype(np.float32)
    for i, gate in enumerate(out.get("attention", [])[:3]):
        row[f"attention {i + 1}"] = gate[n].astype(np.float32)
    for name, title in (("members", "member"), ("rounds", "round"), ("heads", "head")):
        first = 1 if name == "members" and "first" in out else 0  # network 1 has a picture
        for i, member in enumerate(out.get(name, [])[first : first + 3]):
            row[f"{title} {i + 1}"] = member[n].argmax(-1).astype(np.int32)
    return row


def boundary_scores(
    predictor: JaxPredictor, dataset: Dataset, chosen: np.ndarray, membrane: str
) -> dict:
    """Rand and information scores of the membrane class over the chosen items, crop by crop.

    Adapted Rand error and variation of information at probability 0.5, and the ISBI 2012 scores
    over a sweep of thresholds. membrane: name of a class.
    """
    index = dataset.class_names.index(membrane)
    probability = np.concatenate([_probability(predictor, dataset, i)[..., index] for i in chosen])
    labels = dataset.labels[chosen]
    truth, valid = labels == index, labels != VOID
    return rand_scores.isbi2012(probability, truth, valid=valid) | _segment_scores(
        probability > 0.5, truth, valid
    )


def mask_scores(predictor: JaxPredictor, dataset: Dataset, chosen: np.ndarray) -> dict:
    """Agreement of the foreground probability q with the gray mask t of the chosen items.

        accuracy = mean [t = (q > 1/2)]              accuracy_bound = mean [t = 0 or t = 1]
        loss = mean -t log q - (1 - t) log(1 - q)    loss_floor = mean -t log t - (1 - t) log(1 - t)

    Means over all labeled pixels. A pixel can only count as right where the mask is exactly 0 or
    1, and the loss cannot fall below the mask's own entropy, however good the segmentation.
    Source: the accuracy and loss of blood-cell U-Net, section 6 (Keras, binary).
    """
    xlogy = scipy.special.xlogy
    known = dataset.labels[chosen] != VOID
    target = dataset.maps["mask"][chosen][known].astype(np.float64)
    q = np.stack([_probability(predictor, dataset, item)[0, ..., 1] for item in chosen])
    q = np.clip(q[known].astype(np.float64), 1e-7, 1 - 1e-7)
    return {
        "accuracy": float(((q > 0.5) == target).mean()),
        "accuracy_bound": float(((target == 0) | (target == 1)).mean()),
        "loss": float(-(xlogy(target, q) + xlogy(1 - target, 1 - q)).mean()),
        "loss_floor": abs(float((xlogy(target, target) + xlogy(1 - target, 1 - target)).mean())),
    }


def _probability(predictor: JaxPredictor, dataset: Dataset, item: int) -> np.ndarray:
    image = normalized(dataset, item)
    return np.asarray(predictor.apply(image.reshape(1, *dataset.images.shape[1:])))


def _segment_scores(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> dict:
    """Adapted Rand error and variation of information (bits), means over the images."""
    rand, splits, merges = [], [], []
    for p, t, v in zip(predicted, truth, valid, strict=True):
        true_segments = rand_scores.segments(~t & v)
        segments = rand_scores.segments(~p & v)
        rand.append(rand_scores.adapted_rand(true_segments, segments))
        split, merge = rand_scores.variation_of_information(true_segments, segments)
        splits.append(split)
        merges.append(merge)
    return {
        "adapted_rand_error": float(metrics.mean(np.asarray(rand))),
        "vi_split_bits": float(metrics.mean(np.asarray(splits))),
        "vi_merge_bits": float(metrics.mean(np.asarray(merges))),
    }
