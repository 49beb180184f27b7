"""Rand and information scores against hand-worked numbers, all pairs of pixels and scikit-image."""

import os
from pathlib import Path

import numpy as np
import pytest
from skimage import metrics as reference

from feedseg.evaluation import rand_scores as boundary

TRUTH = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 2]])
MERGED = np.array([[1, 1, 1, 1, 1, 1, 1, 1, 1]])
SPLIT = np.array([[1, 1, 3, 3, 0, 2, 2, 2, 2]])
HOLES = np.array([[1, 1, 0, 0, 1, 2, 2, 2, 2]])  # two pixels of the first cell are membrane

# (F, precision, recall)
RAND = {
    "same": (TRUTH, (1, 1, 1)),
    "merged": (MERGED, (2 / 3, 1 / 2, 1)),
    "split": (SPLIT, (6 / 7, 1, 0.375 / 0.5)),
    "holes": (HOLES, (2 * 0.6875 / 1.6875, 1, 0.34375 / 0.5)),
}
INFORMATION = {
    "same": (TRUTH, (1, 1, 1)),
    "merged": (MERGED, (0, 0, 1)),
    "split": (SPLIT, (2 / 2.5, 1, 1 / 1.5)),  # H(T) = I = 1 bit, H(S) = 1.5 bit
    "holes": (HOLES, (2 / 2.75, 1, 1 / 1.75)),
}


@pytest.mark.parametrize("case", RAND)
def test_rand_scores_by_hand(case):
    predicted, expected = RAND[case]
    np.testing.assert_allclose(boundary.rand_scores(TRUTH, predicted), expected, atol=1e-12)


@pytest.mark.parametrize("case", INFORMATION)
def test_information_scores_by_hand(case):
    predicted, expected = INFORMATION[case]
    np.testing.assert_allclose(boundary.information_scores(TRUTH, predicted), expected, atol=1e-12)


def test_rand_scores_count_all_pairs_of_foreground_pixels():
    rng = np.random.default_rng(1)
    truth, predicted = rng.integers(0, 4, (7, 8)), rng.integers(0, 4, (7, 8))
    inside = truth != 0
    t = truth[inside]
    s = np.where(predicted == 0, 100 + np.arange(56).reshape(7, 8), predicted)[inside]
    same_t, same_s = t[:, None] == t, s[:, None] == s  # a pixel is paired with itself too
    both = np.sum(same_t & same_s)
    _, precision, recall = boundary.rand_scores(truth, predicted)
    assert precision == pytest.approx(both / same_s.sum())
    assert recall == pytest.approx(both / same_t.sum())


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_image(seed):
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 6, (8, 8)), np.ones((16, 16), int))
    predicted = np.kron(rng.integers(1, 9, (4, 8)), np.ones((32, 16), int))
    error = reference.adapted_rand_error(truth, predicted, ignore_labels=(0,))[0]
    assert boundary.adapted_rand(truth, predicted) == error
    # scikit-image leaves out the pair of a pixel with itself
    assert boundary.rand_scores(truth, predicted)[0] == pytest.approx(1 - error, abs=1e-3)
    splits, merges = reference.variation_of_information(truth, predicted, ignore_labels=(0,))
    assert boundary.variation_of_information(truth, predicted) == pytest.approx((splits, merges))
    inside = truth != 0
    entropies = [entropy_bits(a[inside]) for a in (truth, predicted)]
    _, precision, recall = boundary.information_scores(truth, predicted)
    assert precision == pytest.approx(1 - merges / entropies[0])
    assert recall == pytest.approx(1 - splits / entropies[1])


def entropy_bits(ids):
    p = np.unique(ids, return_counts=True)[1] / ids.size
    return -np.sum(p * np.log2(p))


def test_adapted_rand_error_by_hand():
    # pairs: 6 + 6 in the truth, 1 + 1 + 6 in the prediction, 8 in both
    assert boundary.adapted_rand(TRUTH, SPLIT) == pytest.approx(1 - 2 * 8 / (12 + 8))


def test_variation_of_information_tells_splits_from_merges():
    splits, merges = boundary.variation_of_information(TRUTH, SPLIT)
    assert (splits, merges) == pytest.approx((0.5, 0))
    splits, merges = boundary.variation_of_information(TRUTH, MERGED)
    assert (splits, merges) == pytest.approx((0, 1))


@pytest.mark.parametrize("score", [boundary.rand_scores, boundary.information_scores])
def test_one_cell_and_no_cell(score):
    one = np.ones((3, 3), int)
    assert score(one, one) == (1, 1, 1)
    assert np.isnan(score(0 * one, one)).all()
    assert score(one, 0 * one)[0] < 0.25  # all membrane
    with pytest.raises(ValueError, match="shape"):
        score(one, one[:2])


def test_no_cell_in_the_truth_gives_nan_for_the_scikit_image_scores():
    one = np.ones((3, 3), int)
    assert np.isnan(boundary.adapted_rand(0 * one, one))
    assert np.isnan(boundary.variation_of_information(0 * one, one)).all()


def test_segments_do_not_join_over_a_corner():
    diagonal = np.array([[1, 0], [0, 1]], bool)
    assert boundary.segments(diagonal).max() == 2


def halves(width, membrane=1.0, size=21):
    """Membrane probability of two cells with a border `width` px wide between them."""
    page = np.zeros((size, size))
    middle = size // 2
    page[:, middle - width // 2 : middle + width // 2 + 1] = membrane
    return page


def test_thinned_borders_are_one_pixel_wide():
    thinned = boundary.thin_borders(boundary.segments(halves(7) == 0))
    assert (thinned[:, 10] == 0).all()
    assert ((thinned == 0).sum(1) == 1).all()
    empty = np.zeros((4, 4), int)
    np.testing.assert_array_equal(boundary.thin_borders(empty), empty)


def test_thick_predicted_borders_cost_nothing_once_thinned():
    truth, predicted = halves(1)[None] > 0, halves(7)[None]
    thinned = boundary.isbi2012(predicted, truth, (0.5,))
    assert (thinned["v_rand"], thinned["v_info"]) == (1, 1)
    assert boundary.isbi2012(predicted, truth, (0.5,), thin=False)["v_rand"] < 0.8


def test_sweep_finds_the_threshold_that_closes_the_border():
    predicted = halves(3, membrane=0.35)  # interior probability 0.65: a border above that only
    scores = boundary.isbi2012(predicted[None], halves(3)[None] > 0)
    assert scores["v_rand_threshold"] == scores["v_info_threshold"] == 0.7
    assert scores["v_rand"] == scores["v_info"] == 1
    low = boundary.isbi2012(predicted[None], halves(3)[None] > 0, (0.5,))
    assert low["v_rand"] == pytest.approx(2 / 3)  # both cells merged
    assert (low["v_rand_precision"], low["v_rand_recall"]) == pytest.approx((1 / 2, 1))


def test_pages_are_averaged_and_pages_without_cells_left_out():
    truth = np.stack([halves(1), halves(1), np.ones((21, 21))]) > 0
    predicted = np.stack([halves(1), np.zeros((21, 21)), np.zeros((21, 21))])
    scores = boundary.isbi2012(predicted, truth, (0.5,))
    assert scores["v_rand"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["v_info"] == pytest.approx((1 + 0) / 2)
    nothing = boundary.isbi2012(predicted[2:], truth[2:], (0.5,))
    assert np.isnan(nothing["v_rand"])


def test_unknown_pixels_do_not_count():
    truth, predicted = halves(1) > 0, halves(1)
    wrong = predicted.copy()
    wrong[5, :10] = 1  # cuts the left cell in two
    valid = np.ones_like(truth)
    valid[:, :10] = False
    assert boundary.isbi2012(wrong[None], truth[None], (0.5,))["v_rand"] < 1
    masked = boundary.isbi2012(wrong[None], truth[None], (0.5,), valid=valid[None])
    assert masked["v_rand"] == 1


def test_refuses_what_does_not_fit():
    page = halves(1)
    with pytest.raises(ValueError, match="shapes"):
        boundary.isbi2012(page[None, :5], page[None] > 0)
    with pytest.raises(ValueError, match="pages"):
        boundary.isbi2012(np.stack([page, page]), page[None] > 0)
    with pytest.raises(ValueError, match="thresholds"):
        boundary.isbi2012(page[None], page[None] > 0, ())


def test_real_sections():
    folder = Path(os.environ.get("FEEDSEG_DATA", "missing")) / "isbi2012_em"
    if not folder.is_dir():
        pytest.skip("needs the ISBI 2012 images: FEEDSEG_DATA/isbi2012_em")
    import tifffile
    from scipy import ndimage

    truth = tifffile.imread(folder / "train-labels.tif", key=[0, 1]) == 0
    same = boundary.isbi2012(truth.astype(float), truth, (0.5,))
    assert same["v_rand"] == same["v_info"] == 1
    soft = np.stack([ndimage.gaussian_filter(page.astype(float), 3) for page in truth])
    swept, fixed = boundary.isbi2012(soft, truth), boundary.isbi2012(soft, truth, (0.5,))
    assert fixed["v_rand"] < swept["v_rand"] < 1
    assert swept["v_rand"] > 0.97 and swept["v_info"] > 0.97
