"""The idx files of MNIST and Fashion-MNIST are read right, or refused."""

import gzip
import math

import numpy as np
import pytest
import torch

from autolr_lab.workloads import WORKLOADS, MissingDataError
from autolr_lab.workloads.mnist import FILES, load_mnist, read_idx
from helpers import real

PLACES = {"folders": ("mnist", "MNIST/raw"), "source": "https://example.org"}


def idx_bytes(array, kind=8):
    return bytes([0, 0, kind, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_set(folder, suffix=".gz", skip=()):
    """Four small files as published: 6 training and 4 test images of one shade, labels 0, 1, 2, ..."""
    folder.mkdir(parents=True)
    for name in set(FILES).difference(skip):
        n = 6 if name.startswith("train") else 4
        data = idx_bytes(np.full((n, 28, 28), 51, np.uint8) if "images" in name else np.arange(n, dtype=np.uint8))
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(data) if suffix else data)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(7,), (2, 3, 4, 5)])
def test_an_array_read_back_is_the_one_written(tmp_path, shape, suffix):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    (tmp_path / f"file{suffix}").write_bytes(gzip.compress(idx_bytes(array)) if suffix else idx_bytes(array))
    found = read_idx(tmp_path, "file")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("place", ["mnist", "MNIST/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_images_are_normalised_and_labels_are_class_numbers(tmp_path, place, suffix):
    write_set(tmp_path / place, suffix)
    for data, n in zip(load_mnist(tmp_path, mean=0.1, std=0.5, **PLACES), (6, 4), strict=True):
        images, labels = data.tensors
        torch.testing.assert_close(images, torch.full((n, 1, 28, 28), (51 / 255 - 0.1) / 0.5))
        assert labels.tolist() == list(range(n))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (idx_bytes(np.zeros((3, 4), np.uint8))[:-1], "tells of 12 bytes, and 11 follow"),
        (idx_bytes(np.zeros((3, 4), np.uint8)) + b"!", "and 13 follow"),
        (idx_bytes(np.zeros(3), kind=14), "begins with 00 00 0e"),
        (b"\x89PNG", "begins with 89 50 4e"),
        (b"", "begins with"),
    ],
)
def test_a_file_that_is_not_whole_or_another_one_is_refused(tmp_path, content, told):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(MissingDataError, match=rf"file is not what it should be: .*{told}"):
        read_idx(tmp_path, "file")


# Published with four digits, so that what is normalised by them has mean 0 and standard deviation 1 to half of the last
# digit over the deviation.
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "deviation", "ones"), [("mnist", 0.3081, 6742), ("fashion-mnist", 0.3530, 6000)], ids=str
)
def test_the_published_files_have_the_published_counts_mean_and_deviation(name, deviation, ones):
    real(name, f"{FILES[0]}.gz")
    train, test = WORKLOADS[name].datasets(real())
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.tensors[1].bincount()[1] == ones
    std, mean = torch.std_mean(train.tensors[0])  # running means: a float32 sum of 47 million pixels loses these digits
    assert math.hypot(float(mean), float(std) - 1) < 2**0.5 * 0.5e-4 / deviation
