"""Images at another size, at once and by rows."""

import numpy as np
import pytest
from skimage.transform import resize

from feedseg.io import resample

RNG = np.random.default_rng(0)
IMAGE = RNG.random((97, 130, 3), dtype=np.float32)
SIZES = [(50, 61), (33, 40), (200, 251), (6, 8), (97, 260)]


@pytest.mark.parametrize("size", SIZES)
def test_equals_the_resizing_of_scikit_image(size):
    smaller = size[0] < 97
    expected = resize(IMAGE, size, order=1, mode="reflect", anti_aliasing=smaller)
    np.testing.assert_allclose(resample.image(IMAGE, size), expected, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("height", [1, 7, 50])
def test_rows_and_streams_equal_the_whole(size, height, monkeypatch):
    monkeypatch.setattr(resample, "BLOCK_PX", 3000)
    work, whole = resample.Resampling((97, 130), size), resample.image(IMAGE, size)
    for start in (0, 3, size[0] - 1):
        first = work.first(start)
        slabs = (IMAGE[top : top + height] for top in range(first, 97, height))
        streamed = np.concatenate(list(work.stream(slabs, start)))
        np.testing.assert_allclose(streamed, whole[start:], atol=1e-6)
        stop = min(size[0], start + height)
        rows = work.rows(lambda a, b: IMAGE[a:b], start, stop)
        np.testing.assert_allclose(rows, whole[start:stop], atol=1e-6)


def test_a_stream_reads_as_few_rows_as_it_needs():
    asked = []

    def read(start, stop):
        asked.append(stop - start)
        return np.zeros((stop - start, 4096, 1), np.float32)

    resample.Resampling((4096, 4096), (512, 512)).rows(read, 0, 512)
    assert len(asked) > 8 and max(asked) * 4096 <= 1.2 * resample.BLOCK_PX


def test_no_stripes_alias():
    """Stripes of 2 px, seen by every fourth, are gray."""
    stripes = np.tile(np.uint8([[0], [255]]), (40, 80))[..., None]
    assert np.ptp(resample.image(stripes, (20, 20))[2:-2].astype(int)) < 12


def test_the_type_of_an_image_stays():
    for kind in (np.uint8, np.uint16, np.float32):
        image = (IMAGE * 250).astype(kind)
        found = resample.image(image, (40, 40))
        assert found.dtype == kind and image.min() <= found.min() <= found.max() <= image.max()
    assert resample.image(np.full((1, 1, 1), 7, np.uint8), (3, 4)).tolist() == [[[7]] * 4] * 3


def test_labels_keep_their_ids_and_places():
    ids = np.uint8([[0, 9], [4, 255]])
    np.testing.assert_array_equal(resample.labels(ids, (4, 6)), np.kron(ids, np.ones((2, 3))))
    np.testing.assert_array_equal(resample.labels(np.kron(ids, np.ones((3, 5))), (2, 2)), ids)
