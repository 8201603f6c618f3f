"""The idx files of MNIST and Fashion-MNIST: read right, or refused with a word on what is wrong and where."""

import functools
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from autolr_lab.workloads import WORKLOADS, MissingDataError
from autolr_lab.workloads.idx import FILES, load_idx, read_idx

load_mnist = functools.partial(load_idx, folder="mnist", mean=0.0, std=1.0, source="https://example.org")
load_fashion = functools.partial(load_idx, folder="fashion-mnist", mean=0.0, std=1.0, source="https://example.org")


def idx_bytes(array, kind=8):
    return bytes([0, 0, kind, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_set(folder, *, suffix=".gz", shade=0, skip=()):
    """Four small files as published: 6 training and 4 test images of one shade, labels 0, 1, 2, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        n = 6 if name.startswith("train") else 4
        content = np.full((n, 28, 28), shade, np.uint8) if "images" in name else np.arange(n, dtype=np.uint8)
        data = idx_bytes(content)
        if name not in skip:
            (folder / f"{name}{suffix}").write_bytes(gzip.compress(data) if suffix else data)
    return folder


def shade_of(datasets):
    """The one pixel value of a set that `write_set` wrote."""
    return {round(float(x) * 255) for data in datasets for x in data.tensors[0].unique()}.pop()


# What is read.


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(7,), (3, 28, 28), (2, 3, 4, 5)])
def test_an_array_read_back_is_the_one_written(tmp_path, shape, suffix):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path / f"file{suffix}"
    path.write_bytes(gzip.compress(idx_bytes(array)) if suffix else idx_bytes(array))
    assert read_idx(path).dtype == np.uint8
    np.testing.assert_array_equal(read_idx(path), array)


def test_images_are_normalised_and_labels_are_class_numbers(tmp_path):
    write_set(tmp_path / "mnist", shade=51)  # 51 / 255 = 0.2
    train, test = load_mnist(tmp_path, mean=0.1, std=0.5)
    for data, n in ((train, 6), (test, 4)):
        images, labels = data.tensors
        assert images.shape == (n, 1, 28, 28)
        assert images.dtype == torch.float32
        assert images == pytest.approx(
            torch.full((n, 1, 28, 28), (0.2 - 0.1) / 0.5), abs=1e-6
        )  # three float32 roundings
        assert labels.dtype == torch.int64
        assert labels.tolist() == list(range(n))


# Where it is looked for.


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("load", "places"),
    [
        (load_mnist, ("mnist", "MNIST/raw", ".")),
        (load_fashion, ("fashion-mnist", "FashionMNIST/raw", ".")),
    ],
    ids=["mnist", "fashion-mnist"],
)
def test_the_files_are_found_in_their_folder_in_torchvisions_layout_and_in_the_folder_itself(
    tmp_path, load, places, suffix
):
    for n, place in enumerate(places):
        write_set(tmp_path / str(n) / place, shade=n + 1, suffix=suffix)
        assert shade_of(load(tmp_path / str(n))) == n + 1


def test_without_a_folder_the_environment_names_it_and_else_it_is_data(tmp_path, monkeypatch):
    write_set(tmp_path / "elsewhere" / "mnist", shade=1)
    write_set(tmp_path / "data" / "mnist", shade=2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOLR_DATA", str(tmp_path / "elsewhere"))
    assert shade_of(load_mnist(None)) == 1
    assert shade_of(load_mnist(tmp_path / "data")) == 2  # named: the environment does not matter
    monkeypatch.delenv("AUTOLR_DATA")
    assert shade_of(load_mnist(None)) == 2


def test_side_by_side_the_two_data_sets_are_not_mixed_up(tmp_path):
    for layout in (("mnist", "fashion-mnist"), ("MNIST/raw", "FashionMNIST/raw")):
        root = tmp_path / layout[0].replace("/", "-")
        write_set(root / layout[0], shade=1)
        write_set(root / layout[1], shade=2)
        assert (shade_of(load_mnist(root)), shade_of(load_fashion(root))) == (1, 2)


def test_files_of_the_other_data_set_in_the_folder_itself_do_not_hide_the_right_ones(tmp_path):
    write_set(tmp_path, shade=1)  # MNIST's, loose: the same names and the same format
    write_set(tmp_path / "fashion-mnist", shade=2)
    assert shade_of(load_fashion(tmp_path)) == 2


@pytest.mark.parametrize(
    ("load", "other"),
    [(load_fashion, "mnist"), (load_mnist, "fashion-mnist"), (load_fashion, "MNIST/raw")],
)
def test_a_folder_named_after_the_other_data_set_is_not_read_as_this_one(tmp_path, load, other):
    with pytest.raises(MissingDataError):
        load(write_set(tmp_path / other))


def test_half_a_set_in_one_place_is_not_filled_up_from_another(tmp_path):
    write_set(tmp_path / "mnist", shade=1, skip=FILES[2:])
    write_set(tmp_path / "MNIST" / "raw", shade=2)
    assert shade_of(load_mnist(tmp_path)) == 2


@pytest.mark.parametrize("missing", FILES)
def test_what_is_missing_is_named_with_every_place_that_was_searched_and_where_to_get_it(tmp_path, missing):
    write_set(tmp_path / "mnist", skip=[missing])
    with pytest.raises(MissingDataError, match="mnist files were not found") as refused:
        load_mnist(tmp_path)
    told = str(refused.value)
    assert all(name in told for name in FILES)
    assert all(f"{tmp_path / place}/\n" in told for place in ("mnist", "MNIST/raw"))
    assert f"{tmp_path}/\n" in told
    assert all(hint in told for hint in (".gz", "https://example.org", "--data-dir", "AUTOLR_DATA"))


def test_a_folder_under_the_files_name_is_not_the_file(tmp_path):
    write_set(tmp_path / "mnist", skip=[FILES[0]])
    (tmp_path / "mnist" / f"{FILES[0]}.gz").mkdir()
    with pytest.raises(MissingDataError, match="not found"):
        load_mnist(tmp_path)


# What is refused.

WHOLE = idx_bytes(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
PACKED = gzip.compress(WHOLE)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        pytest.param("f", WHOLE[:-1], "3 x 4 x 5 bytes, and 59 follow", id="one byte short"),
        pytest.param("f", WHOLE + b"!", "3 x 4 x 5 bytes, and 61 follow", id="one byte over"),
        pytest.param("f", WHOLE[:10], "header", id="cut off in the header"),
        pytest.param("f", b"", "begins with nothing", id="empty"),
        pytest.param("f", b"\0\0\x08", "begins with 00 00 08", id="three bytes"),
        pytest.param("f", b"\x89PNG" + WHOLE, "begins with 89 50 4e 47", id="another format"),
        pytest.param("f", idx_bytes(np.zeros(3), kind=14), "begins with 00 00 0e 01", id="floats"),
        pytest.param("f", PACKED, "begins with 1f 8b", id="gzip without its name"),
        pytest.param("f.gz", WHOLE, "cannot be unpacked", id="gzip in name only"),
        pytest.param("f.gz", PACKED[:-5], "cannot be unpacked", id="gzip cut off"),
        pytest.param("f.gz", PACKED[:20] + b"\xff\xff\xff" + PACKED[23:], "cannot be unpacked", id="gzip changed"),
        pytest.param("f.gz", PACKED[:10] + b"\xff" * 9, "cannot be unpacked", id="gzip corrupt from the first block"),
        pytest.param("f.gz", PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "cannot be unpacked", id="wrong checksum"),
        pytest.param("f.gz", gzip.compress(WHOLE[:-1]), "and 59 follow", id="short inside gzip"),
        pytest.param("f", b"\0\0\x08\x03" + b"\xff" * 12, "4294967295 x 4294967295", id="more than memory"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_with_its_path_and_what_is_wrong(tmp_path, name, content, told):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MissingDataError, match=r"is not what it should be.*Fetch it again") as refused:
        read_idx(path)
    assert str(path) in str(refused.value)
    assert told in str(refused.value)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads what nobody may read")
def test_a_file_that_may_not_be_read_is_refused_with_its_path(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(WHOLE)
    path.chmod(0)
    with pytest.raises(MissingDataError, match="Permission denied"):
        read_idx(path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        pytest.param(FILES[1], np.zeros(5, np.uint8), id="a label too few"),
        pytest.param(FILES[1], np.zeros((6, 1), np.uint8), id="labels in a table"),
        pytest.param(FILES[0], np.zeros((6, 784), np.uint8), id="flat images"),
        pytest.param(FILES[2], np.zeros((5, 28, 28), np.uint8), id="a test image too many"),
    ],
)
def test_images_and_labels_that_do_not_belong_together_are_refused_with_both_shapes(tmp_path, name, array):
    write_set(tmp_path / "mnist", suffix="")
    (tmp_path / "mnist" / name).write_bytes(idx_bytes(array))
    with pytest.raises(MissingDataError, match=r"images of shape .* and labels of shape") as refused:
        load_mnist(tmp_path)
    assert str(array.shape) in str(refused.value)


# The published files.

DATA = Path(os.environ.get("AUTOLR_DATA", Path(__file__).parents[2] / "shared" / "data"))
# Pixel mean and standard deviation are published with four digits, so that what is normalised by them has mean 0 and
# standard deviation 1 to half of the last digit over the deviation.
CLASSES = {  # examples of each class in the training set; Fashion-MNIST is balanced
    "mnist": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "fashion-mnist": [6000] * 10,
}
TEST_CLASSES = {
    "mnist": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    "fashion-mnist": [1000] * 10,
}


@pytest.mark.data
@pytest.mark.parametrize(("name", "deviation"), [("mnist", 0.3081), ("fashion-mnist", 0.3530)])
def test_the_published_files_have_the_published_counts_mean_and_deviation(name, deviation):
    if not (DATA / name / f"{FILES[0]}.gz").is_file():
        pytest.skip(f"no {name} files in {DATA}: name their folder in AUTOLR_DATA")
    train, test = WORKLOADS[name].datasets(DATA)
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.tensors[1].bincount().tolist() == CLASSES[name]
    assert test.tensors[1].bincount().tolist() == TEST_CLASSES[name]
    images = train.tensors[0]
    assert images.shape == (60_000, 1, 28, 28)
    half_a_digit = 0.5e-4 / deviation
    std, mean = torch.std_mean(images)  # by running means: a plain float32 sum of 47 million pixels loses these digits
    assert float(mean) == pytest.approx(0, abs=half_a_digit)
    assert float(std) == pytest.approx(1, abs=half_a_digit)
