"""CIFAR-10: its files read right or refused with a word, its augmentation honest, its networks the published ones."""

import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from autolr.policies import ExploreExploit
from autolr_lab.workloads import WORKLOADS, MissingDataError
from autolr_lab.workloads.cifar10 import (
    BATCHES,
    MEAN,
    STD,
    Images,
    crop_and_flip,
    load_cifar10,
    read_batch,
    read_sheet,
)
from autolr_lab.workloads.workload import loader

ALL_BATCHES = [*BATCHES["train"], *BATCHES["test"]]


class Python2Pickler(pickle._Pickler):
    """Writes as Python 2 did, which made the published files: one kind of string, and numpy's old module names."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, value):
        data = value if isinstance(value, bytes) else value.encode("ascii")
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string

    def save_global(self, obj, name=None):
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or obj.__name__}\n".encode())
        self.memoize(obj)

    dispatch[type] = dispatch[type(len)] = save_global


def write_batch(path, data, labels, **more):
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump({"data": data, "labels": labels, **more})
    return path


def write_batches(folder, *, n=3, shade=0, skip=()):
    """Six small files as published; image i of a file is of one shade, in red, green and blue 1, 2 and 3 times it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(ALL_BATCHES):
        shades = np.arange(n)[:, None] + 10 * number + shade
        data = np.repeat(shades * [1, 2, 3], 1024, axis=1).astype(np.uint8)
        if name not in skip:
            write_batch(folder / name, data, [i % 10 for i in range(n)], batch_label=name, filenames=["a.png"] * n)
    return folder


def write_sheets(folder, *, train=2, shade=0, skip=()):
    """Sheets of 1,000 images each of one shade: the red is the row on the sheet, the green the column."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, sheets in (("train", train), ("test", 1)):
        np.save(folder / f"{split}-labels.npy", (np.arange(1000 * sheets) % 10).astype(np.uint8))
        for number in range(sheets):
            small = np.zeros((40, 25, 3), np.uint8)
            small[..., 0], small[..., 1], small[..., 2] = np.arange(40)[:, None], np.arange(25), number + shade
            if (name := f"{split}-{number:02d}.webp") not in skip:
                big = Image.fromarray(small.repeat(32, 0).repeat(32, 1))
                big.save(folder / name, lossless=True, quality=0, method=0)
    return folder


def pixels(n, seed=0):
    return torch.randint(1, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# The published batches.


def test_a_python_batch_of_python_2_is_read(tmp_path):
    data = np.random.default_rng(0).integers(0, 256, (4, 3072)).astype(np.uint8)
    images, labels = read_batch(write_batch(tmp_path / "data_batch_1", data, [3, 1, 4, 1], batch_label="1 of 5"))
    assert images.dtype == labels.dtype == np.uint8
    np.testing.assert_array_equal(images, data.reshape(4, 3, 32, 32))  # a plane of each colour, row by row
    assert labels.tolist() == [3, 1, 4, 1]


def test_a_batch_that_numpy_2_and_python_3_wrote_is_read_too(tmp_path):
    content = {b"data": np.arange(6144, dtype=np.uint8).reshape(2, 3072), b"labels": [0, 9]}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(content, protocol=3))
    assert read_batch(tmp_path / "data_batch_1")[1].tolist() == [0, 9]


@pytest.mark.parametrize("folder", ["cifar-10-batches-py", "."])
def test_the_batches_make_a_training_and_a_test_set_in_order(tmp_path, folder):
    write_batches(tmp_path / folder)
    train, test = load_cifar10(tmp_path)
    assert (len(train), len(test)) == (15, 3)
    reds = [10 * number + i for number in range(6) for i in range(3)]
    images = torch.cat([train.tensors[0], test.tensors[0]])
    assert images.dtype == torch.uint8
    for plane, times in enumerate((1, 2, 3)):
        assert images[:, plane, 5, 7].tolist() == [times * red for red in reds]
    assert train.tensors[1].tolist() == [0, 1, 2] * 5
    assert train.tensors[1].dtype == torch.int64
    assert (train.augment, test.augment) == (True, False)


# The sheets.


@pytest.mark.parametrize("folder", ["cifar-10", "."])
def test_sheets_are_read_row_by_row_25_images_across(tmp_path, folder):
    write_sheets(tmp_path / folder)
    train, test = load_cifar10(tmp_path)
    assert (len(train), len(test)) == (2000, 1000)
    images = train.tensors[0]
    assert images.shape == (2000, 3, 32, 32)
    assert (images == images[..., :1, :1]).all()  # each of one shade: no image has a piece of its neighbour
    red, green, blue = images[:, :, 0, 0].T.tolist()
    assert red == [i % 1000 // 25 for i in range(2000)]
    assert green == [i % 25 for i in range(2000)]
    assert blue == [i // 1000 for i in range(2000)]
    assert train.tensors[1].tolist() == [i % 10 for i in range(2000)]


def test_an_image_on_a_sheet_is_the_right_way_up(tmp_path):
    sheet = np.random.default_rng(0).integers(0, 256, (1280, 800, 3)).astype(np.uint8)
    Image.fromarray(sheet).save(tmp_path / "s.webp", lossless=True, quality=0, method=0)
    images = read_sheet(tmp_path / "s.webp")
    np.testing.assert_array_equal(images[2 * 25 + 7], sheet[64:96, 224:256].transpose(2, 0, 1))


def test_the_published_batches_are_read_where_there_are_both(tmp_path):
    write_sheets(tmp_path / "cifar-10", train=1)
    write_batches(tmp_path / "cifar-10-batches-py")
    assert len(load_cifar10(tmp_path)[0]) == 15


# What is missing or refused.


def test_sheets_say_how_many_of_their_images_are_not_the_published_pixels(tmp_path):
    folder = write_sheets(tmp_path / "cifar-10", train=1)
    assert "an unknown number of images come from a JPEG copy" in load_cifar10(tmp_path)[0].notice
    np.save(folder / "train-jpeg-indices.npy", np.arange(7))
    np.save(folder / "test-jpeg-indices.npy", np.arange(3))
    train, test = load_cifar10(tmp_path)
    assert "10 images come from a JPEG copy" in train.notice
    assert train.notice == test.notice
    write_batches(tmp_path / "cifar-10-batches-py")
    assert load_cifar10(tmp_path)[0].notice == ""


def test_without_a_folder_the_environment_names_it(tmp_path, monkeypatch):
    write_batches(tmp_path / "here" / "cifar-10-batches-py")
    monkeypatch.setenv("AUTOLR_DATA", str(tmp_path / "here"))
    assert len(load_cifar10(None)[0]) == 15


@pytest.mark.parametrize("missing", ALL_BATCHES)
def test_what_is_missing_is_named_with_every_place_that_was_searched_and_where_to_get_it(tmp_path, missing):
    write_batches(tmp_path / "cifar-10-batches-py", skip=[missing])
    with pytest.raises(MissingDataError, match="CIFAR-10 files were not found") as refused:
        load_cifar10(tmp_path)
    told = str(refused.value)
    for hint in (
        f"{tmp_path / 'cifar-10-batches-py'}/ for",
        f"{tmp_path / 'cifar-10'}/ for",
        missing,
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        "--data-dir",
        "AUTOLR_DATA",
    ):
        assert hint in told


def refused(read, path, told):
    with pytest.raises(MissingDataError, match=r"is not what it should be.*Fetch it again") as error:
        read(path)
    assert told in str(error.value)
    assert path.name in str(error.value)


ROWS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("data", "labels", "told"),
    [
        pytest.param(ROWS, [1], "not 2 numbers", id="a label too few"),
        pytest.param(ROWS, [1, 10], "from 0 to 9", id="an eleventh class"),
        pytest.param(ROWS, [1, -1], "from 0 to 9", id="a negative class"),
        pytest.param(ROWS, ["a", "b"], "from 0 to 9", id="names for numbers"),
        pytest.param(ROWS[:, 1:], [1, 2], "(n, 3072)", id="a byte too few"),
        pytest.param(ROWS.reshape(2, 3, 32, 32), [1, 2], "(n, 3072)", id="in planes"),
        pytest.param(ROWS.astype(np.float32), [1, 2], "b'data' of bytes", id="floats"),
        pytest.param([1, 2], [1, 2], "b'data' of bytes", id="a list"),
    ],
)
def test_a_batch_that_is_not_one_is_refused_with_what_is_wrong(tmp_path, data, labels, told):
    refused(read_batch, write_batch(tmp_path / "data_batch_1", data, labels), told)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"", "Ran out of input", id="empty"),
        pytest.param(b"\x89PNG", "cannot be unpickled", id="another format"),
        pytest.param(pickle.dumps([1, 2]), "no b'data'", id="a list"),
        pytest.param(pickle.dumps({"data": [], "labels": []}), "no b'data'", id="of Python 3's strings"),
    ],
)
def test_a_file_that_is_no_batch_is_refused(tmp_path, content, told):
    (tmp_path / "data_batch_1").write_bytes(content)
    refused(read_batch, tmp_path / "data_batch_1", told)


def test_a_batch_cut_off_is_refused(tmp_path):
    path = write_batch(tmp_path / "data_batch_1", ROWS, [1, 2])
    path.write_bytes(path.read_bytes()[:3000])
    refused(read_batch, path, "cannot be unpickled")


class Malice:
    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("call", [os.mkdir, eval, np.load, getattr], ids=lambda call: call.__name__)
def test_a_pickle_that_would_call_something_is_refused_and_calls_nothing(tmp_path, call):
    # The first would leave a folder behind.
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": Malice(call, str(tmp_path / "made")), b"labels": []}, protocol=2))
    refused(read_batch, path, "which arrays have no need of")
    assert list(tmp_path.iterdir()) == [path]


def test_a_sheet_that_is_missing_damaged_or_of_another_size_is_refused(tmp_path):
    for n, (name, told) in enumerate(
        [("train-01.webp", "No such file"), ("train-00.webp", "cannot identify"), ("test-00.webp", "64 x 32 pixels")]
    ):
        folder = write_sheets(tmp_path / str(n), skip=[name])
        if "identify" in told:
            (folder / name).write_bytes(b"RIFF, and no more")
        elif "pixels" in told:
            Image.new("RGB", (64, 32)).save(folder / name, lossless=True)
        with pytest.raises(MissingDataError, match=told) as error:
            load_cifar10(folder)
        assert name in str(error.value)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        pytest.param(np.zeros(999, np.uint8), "999 labels", id="one too few for a sheet"),
        pytest.param(np.full(1000, 10, np.uint8), "up to 9", id="an eleventh class"),
        pytest.param(np.zeros(1000), "float64", id="floats"),
        pytest.param(np.zeros((1000, 1), np.uint8), "(1000, 1)", id="in a table"),
        pytest.param(np.array([None] * 1000), "cannot be read", id="objects, which would be unpickled"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path, labels, told):
    folder = write_sheets(tmp_path, train=1)
    np.save(folder / "train-labels.npy", labels)
    with pytest.raises(MissingDataError, match=r"train-labels\.npy is not what it should be") as error:
        load_cifar10(folder)
    assert told in str(error.value)


# Augmentation.


def test_every_augmented_image_is_a_crop_of_its_framed_image_or_the_mirror_of_one():
    torch.manual_seed(0)
    images = pixels(200)
    framed = F.pad(images, (4, 4, 4, 4))
    seen = set()
    for frame, crop in zip(framed, crop_and_flip(images), strict=True):
        found = [
            (down, right, mirrored)
            for down in range(9)
            for right in range(9)
            for mirrored in (False, True)
            if torch.equal(frame[:, down : down + 32, right : right + 32], crop.flip(2) if mirrored else crop)
        ]
        assert len(found) == 1  # of random pixels, no two crops are alike
        seen.update(found)
    # 200 draws of 162 places: 70 % of them are seen, give or take 3 % (1 - 1/e^(200/162)).
    assert len(seen) > 0.6 * 162
    assert {down for down, _, _ in seen} == {right for _, right, _ in seen} == set(range(9))


def test_half_the_images_are_mirrored_and_every_place_is_as_likely_as_another():
    # One bright pixel in the middle: where it goes tells the place, and its neighbour the mirror.
    torch.manual_seed(0)
    n = 5000
    images = torch.zeros(n, 3, 32, 32, dtype=torch.uint8)
    images[:, :, 16, 16], images[:, :, 16, 17] = 255, 100
    crops = crop_and_flip(images)
    at = (crops[:, 0] == 255).flatten(1).long().argmax(1)
    rows, columns = at // 32, at % 32
    right_of_it = crops[torch.arange(n), 0, rows, (columns + 1).clamp(max=31)]
    mirrored = right_of_it != 100
    assert float(mirrored.float().mean()) == pytest.approx(0.5, abs=4 * 0.5 / n**0.5)  # four standard errors
    counts = rows.bincount(minlength=32)[12:21]
    assert counts.sum() == n
    assert counts.tolist() == pytest.approx([n / 9] * 9, abs=4 * (n / 9 * 8 / 9) ** 0.5)


def test_augmentation_is_of_torchs_global_generator_so_that_a_look_can_seed_it_and_put_it_back():
    data = Images(pixels(50), torch.arange(50) % 10, augment=True)

    def minibatch(seed):
        torch.manual_seed(seed)
        return data[list(range(50))][0]

    assert torch.equal(minibatch(0), minibatch(0))
    assert not torch.equal(minibatch(0), minibatch(1))


def test_a_test_image_is_itself_normalised_whenever_it_is_asked_for_and_draws_nothing():
    images, labels = pixels(8), torch.arange(8)
    data = Images(images, labels, augment=False)
    before = torch.get_rng_state()
    got, classes = data[[5, 2]]
    assert torch.equal(torch.get_rng_state(), before)
    assert classes.tolist() == [5, 2]
    by_hand = (images[[5, 2]].double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert got.dtype == torch.float32
    assert torch.allclose(got.double(), by_hand, atol=1e-5)  # float32 of numbers up to 2.1
    assert torch.equal(data[[5, 2]][0], got)


def test_augmentation_leaves_the_stored_images_alone_and_an_epoch_sees_each_anew():
    torch.manual_seed(0)
    data = Images(pixels(64), torch.arange(64) % 10, augment=True)
    stored = data.tensors[0].clone()
    first, second = (list(loader(data, 16)) for _ in range(2))
    assert torch.equal(data.tensors[0], stored)
    assert [tuple(images.shape) for images, _ in first] == [(16, 3, 32, 32)] * 4
    assert not torch.equal(first[0][0], second[0][0])
    assert torch.equal(torch.cat([labels for _, labels in first]), torch.arange(64) % 10)


# The networks.


@pytest.mark.parametrize(("name", "count"), [("cifar10", 11_173_962), ("cifar10-small", 78_042)])
def test_the_networks_have_the_published_number_of_parameters(name, count):
    # 11,173,962: kuangliu/pytorch-cifar's ResNet18. By hand, for the thin one: 464 + 4,672 + 14,528 + 57,728 + 650.
    with torch.device("meta"):
        assert sum(p.numel() for p in WORKLOADS[name].model().parameters()) == count


@torch.no_grad()
def test_resnet_18_sees_32_16_8_and_4_pixels_and_the_thin_one_half_as_many():
    for name, sides in (("cifar10", [32, 32, 16, 16, 8, 8, 4, 4]), ("cifar10-small", [16, 8, 4])):
        model, x, seen = WORKLOADS[name].model().eval(), torch.zeros(2, 3, 32, 32), []
        for module in model:
            x = module(x)
            if type(module).__name__ == "_Residual":
                seen.append(x.shape[-1])
        assert seen == sides
        assert x.shape == (2, 10)


@pytest.mark.parametrize("name", ["cifar10", "cifar10-small"])
def test_seed_rates_and_policy_are_the_papers(name):
    workload = WORKLOADS[name]
    rates = {kind: workload.rate(kind) for kind in ("sgd", "momentum", "adam")}
    assert rates == {"sgd": 0.1, "momentum": 0.1, "adam": 1e-3}  # part 3.2
    assert workload.policy == ExploreExploit.from_paper("cifar10")
    assert (workload.batch_size, workload.epochs) == (128, 200 if name == "cifar10" else 10)


# The real files.

DATA = Path(os.environ.get("AUTOLR_DATA", Path(__file__).parents[2] / "shared" / "data"))
DECODED = {  # sha256 of the bytes, image by image, colours last
    "train": "d153f2bc2383b8129c4d26ffb92b0b4cd66284352ff28ddc8234b98a325dbc3e",
    "test": "e1218b2bf607f0424fa62842da65b909fef1b4ef63093191d2b4c1fccf10c0e7",
}


@pytest.mark.data
def test_the_sheets_hold_the_images_that_they_were_made_of():
    if not (DATA / "cifar-10" / "train-labels.npy").is_file():
        pytest.skip(f"no CIFAR-10 sheets in {DATA}/cifar-10: name their folder in AUTOLR_DATA")
    train, test = load_cifar10(DATA / "cifar-10")
    assert (len(train), len(test)) == (50_000, 10_000)
    for split, data, each in (("train", train, 5000), ("test", test, 1000)):
        images, labels = data.tensors
        assert labels.bincount().tolist() == [each] * 10
        decoded = hashlib.sha256()
        for part in images.split(1000):  # the whole at once would be copied
            decoded.update(part.permute(0, 2, 3, 1).contiguous().numpy().data)
        assert decoded.hexdigest() == DECODED[split]
    images = train.tensors[0].numpy()
    assert images.mean(axis=(0, 2, 3)) / 255 == pytest.approx(MEAN, abs=0.5e-4)  # published with four digits
    assert images[::20].std(axis=(0, 2, 3)) / 255 == pytest.approx(STD, abs=5e-3)  # of 2,500 images: seconds faster
