"""Confusion matrices and the scores made from them, against numbers worked out by hand."""

import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest

from feedseg.evaluation import metrics

LABELS = np.array([[[0, 0, 1], [1, 2, 255]], [[2, 2, 2], [255, 0, 1]]], np.uint8)
PREDICTIONS = np.array([[[0, 1, 1], [1, 0, 2]], [[2, 2, 1], [0, 0, 1]]], np.int32)
FIRST = [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
SECOND = [[1, 0, 0], [0, 1, 0], [0, 1, 2]]
BOTH = np.add(FIRST, SECOND)  # [[2, 1, 0], [0, 3, 0], [1, 1, 2]]


@pytest.mark.parametrize("jit", [False, True])
def test_confusion_counts_by_hand(jit):
    count = metrics.confusion_per_image
    if jit:
        count = jax.jit(count, static_argnums=2)
    matrices = count(LABELS, PREDICTIONS, 3)
    np.testing.assert_array_equal(matrices, [FIRST, SECOND])
    assert matrices.dtype == np.int32


def test_confusion_agrees_with_a_histogram():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (3, 40, 30)).astype(np.uint8)
    predictions = rng.integers(0, 5, (3, 40, 30)).astype(np.int32)
    expected = np.bincount((labels * 5 + predictions).ravel(), minlength=25).reshape(5, 5)
    np.testing.assert_array_equal(
        metrics.confusion_per_image(labels, predictions, 5).sum(0), expected
    )


def test_void_may_be_a_class_id_and_ids_out_of_range_count_nowhere():
    labels = np.array([[[0, 1, 2, 7]]])
    predictions = np.array([[[0, 1, 2, 0]]])
    np.testing.assert_array_equal(
        metrics.confusion_per_image(labels, predictions, 3, void=1).sum(0), np.diag([1, 0, 1])
    )


def test_confusion_is_exact_beyond_the_integers_of_float32():
    side = 4097  # 16,785,409 px: odd and above 2^24
    zeros = np.zeros((1, side, side), np.uint8)
    (matrix,) = jax.jit(metrics.confusion_per_image, static_argnums=2)(zeros, zeros, 2)
    np.testing.assert_array_equal(matrix, [[side * side, 0], [0, 0]])


def test_iou_dice_accuracy_by_hand():
    np.testing.assert_allclose(metrics.iou(BOTH), [2 / 4, 3 / 5, 2 / 4])
    np.testing.assert_allclose(metrics.dice(BOTH), [4 / 6, 6 / 8, 4 / 6])
    assert metrics.accuracy(BOTH) == pytest.approx(7 / 10)
    np.testing.assert_allclose(metrics.iou(np.stack([FIRST, SECOND]))[1], [1, 1 / 2, 2 / 3])


def test_absent_class_is_left_out_and_predicted_only_class_scores_zero():
    absent = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    np.testing.assert_allclose(metrics.iou(absent), [3 / 4, 4 / 5, np.nan])
    assert metrics.mean(metrics.iou(absent)) == pytest.approx((3 / 4 + 4 / 5) / 2)
    only_predicted = np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    np.testing.assert_allclose(metrics.iou(only_predicted), [3 / 4, 1, 0])
    assert metrics.mean(metrics.iou(only_predicted)) == pytest.approx((3 / 4 + 1) / 3)


def test_nothing_counted_gives_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = metrics.summary(np.zeros((2, 2)), ["a", "b"])
        scores |= metrics.per_image(np.zeros((1, 2, 2)), ["a", "b"])
    assert all(np.isnan(value) for value in scores.values())


def test_summary_names_every_score():
    scores = metrics.summary(BOTH, ["x", "y", "z"])
    assert list(scores) == [
        *["miou", "mdice", "accuracy"],
        *["iou/x", "iou/y", "iou/z", "dice/x", "dice/y", "dice/z"],
    ]
    assert scores["miou"] == pytest.approx((2 / 4 + 3 / 5 + 2 / 4) / 3)
    assert scores["mdice"] == pytest.approx((4 / 6 + 6 / 8 + 4 / 6) / 3)
    assert scores["iou/y"] == pytest.approx(3 / 5)
    assert all(type(value) is float for value in scores.values())
    with pytest.raises(ValueError):
        metrics.summary(BOTH, ["x", "y"])


def test_per_image_averages_the_images_that_have_a_score():
    matrices = np.array([[[2, 0, 0], [0, 2, 0], [0, 0, 0]], FIRST])
    scores = metrics.per_image(matrices, ["x", "y", "z"])
    assert scores["iou/x"] == pytest.approx((1 + 1 / 3) / 2)
    assert scores["iou/y"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["iou/z"] == 0  # absent in the first image: only the second one counts
    assert scores["miou"] == pytest.approx((1 + (1 / 3 + 2 / 3 + 0) / 3) / 2)
    assert scores["accuracy"] == pytest.approx((1 + 3 / 5) / 2)


def test_large_counts_stay_exact():
    matrix = np.array([[2**40, 1], [0, 2**40]])
    assert metrics.iou(matrix)[0] == 2**40 / (2**40 + 1)


def test_host_part_does_not_load_jax():
    code = "import sys, feedseg.evaluation.metrics; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
