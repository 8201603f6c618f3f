"""CIFAR-10: its files are read right, its augmentation is honest, its networks are the published ones."""

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from autolr_lab.workloads import WORKLOADS, MissingDataError
from autolr_lab.workloads.cifar10 import BATCHES, MEAN, STD, Images, crop_and_flip, load_cifar10, read_sheet
from autolr_lab.workloads.workload import loader
from helpers import real


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


def write_batches(folder, n=3):
    """Six small files as published; image i of a file is of one shade, in red, green and blue 1, 2 and 3 times it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate([*BATCHES["train"], *BATCHES["test"]]):
        shades = np.arange(n)[:, None] + 10 * number
        data = np.repeat(shades * [1, 2, 3], 1024, axis=1).astype(np.uint8)
        with (folder / name).open("wb") as file:
            Python2Pickler(file, protocol=2).dump({"data": data, "labels": list(range(n)), "batch_label": name})


def write_sheets(folder):
    """Sheets of 1,000 images each of one shade: the red is the row on the sheet, the green the column."""
    folder.mkdir(parents=True)
    for split, sheets in (("train", 2), ("test", 1)):
        np.save(folder / f"{split}-labels.npy", (np.arange(1000 * sheets) % 10).astype(np.uint8))
        for number in range(sheets):
            small = np.zeros((40, 25, 3), np.uint8)
            small[..., 0], small[..., 1], small[..., 2] = np.arange(40)[:, None], np.arange(25), number
            big = Image.fromarray(small.repeat(32, 0).repeat(32, 1))
            big.save(folder / f"{split}-{number:02d}.webp", lossless=True, quality=0, method=0)


def pixels(n, seed=0):
    return torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("folder", ["cifar-10-batches-py", "."])
def test_the_published_batches_make_a_training_and_a_test_set_in_order(tmp_path, folder):
    write_batches(tmp_path / folder)
    train, test = load_cifar10(tmp_path)
    assert (len(train), len(test)) == (15, 3)
    reds = [10 * number + i for number in range(6) for i in range(3)]
    images = torch.cat([train.tensors[0], test.tensors[0]])
    for plane, times in enumerate((1, 2, 3)):
        assert images[:, plane, 5, 7].tolist() == [times * red for red in reds]
    assert train.tensors[1].tolist() == [0, 1, 2] * 5
    assert (train.augment, test.augment, train.notice) == (True, False, "")


class Runs:
    """As a pickle that runs a command when it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_batch_that_would_run_something_is_refused_and_runs_nothing(tmp_path):
    write_batches(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Runs(tmp_path / "ran"), b"labels": []}))
    with pytest.raises(MissingDataError, match="no array needs"):
        load_cifar10(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_sheets_are_read_row_by_row_and_say_how_many_images_are_not_the_published_pixels(tmp_path):
    write_sheets(tmp_path / "cifar-10")
    np.save(tmp_path / "cifar-10" / "train-jpeg-indices.npy", np.arange(7))
    train, test = load_cifar10(tmp_path)
    assert (len(train), len(test)) == (2000, 1000)
    images = train.tensors[0]
    assert (images == images[..., :1, :1]).all()  # each of one shade: no image has a piece of its neighbour
    red, green, blue = images[:, :, 0, 0].T.tolist()
    assert red == [i % 1000 // 25 for i in range(2000)]
    assert green == [i % 25 for i in range(2000)]
    assert blue == [i // 1000 for i in range(2000)]
    assert train.tensors[1].tolist() == [i % 10 for i in range(2000)]
    assert "7 images come from a JPEG copy" in train.notice
    assert train.notice == test.notice


def test_an_image_on_a_sheet_is_the_right_way_up(tmp_path):
    sheet = np.random.default_rng(0).integers(0, 256, (1280, 800, 3)).astype(np.uint8)
    Image.fromarray(sheet).save(tmp_path / "s.webp", lossless=True, quality=0, method=0)
    images = read_sheet(tmp_path / "s.webp")
    np.testing.assert_array_equal(images[2 * 25 + 7], sheet[64:96, 224:256].transpose(2, 0, 1))


def test_a_sheet_of_another_size_is_refused(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "s.webp")
    with pytest.raises(MissingDataError, match="32 x 32 pixels, a sheet 800 x 1280"):
        read_sheet(tmp_path / "s.webp")


# Augmentation.


def test_every_augmented_image_is_a_crop_of_its_framed_image_or_the_mirror_of_one():
    torch.manual_seed(0)
    images = pixels(200)
    seen = set()
    for frame, crop in zip(F.pad(images, (4, 4, 4, 4)), crop_and_flip(images), strict=True):
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
    mirrored = crops[torch.arange(n), 0, rows, (columns + 1).clamp(max=31)] != 100
    assert float(mirrored.float().mean()) == pytest.approx(0.5, abs=4 * 0.5 / n**0.5)  # four standard errors
    counts = rows.bincount(minlength=32)[12:21]
    assert counts.sum() == n
    assert counts.tolist() == pytest.approx([n / 9] * 9, abs=4 * (n / 9 * 8 / 9) ** 0.5)


def test_augmentation_draws_from_torchs_global_generator_and_leaves_the_stored_images_alone():
    data = Images(pixels(50), torch.arange(50) % 10, augment=True)
    stored = data.tensors[0].clone()

    def epoch(seed):
        torch.manual_seed(seed)
        return torch.cat([images for images, _ in loader(data, 16)])

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))
    assert torch.equal(data.tensors[0], stored)


def test_a_test_image_is_itself_normalised_whenever_it_is_asked_for_and_draws_nothing():
    images, labels = pixels(8), torch.arange(8)
    data = Images(images, labels, augment=False)
    before = torch.get_rng_state()
    got, classes = data[[5, 2]]
    assert torch.equal(torch.get_rng_state(), before)
    assert classes.tolist() == [5, 2]
    by_hand = (images[[5, 2]].double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(got.double(), by_hand, atol=1e-5, rtol=0)  # float32 of numbers up to 2.1


# The networks.


@pytest.mark.parametrize(
    ("name", "count", "sides"),
    [("cifar10", 11_173_962, [32, 32, 16, 16, 8, 8, 4, 4]), ("cifar10-small", 78_042, [16, 8, 4])],
)
def test_the_networks_have_the_published_number_of_parameters_and_stages(name, count, sides):
    # 11,173,962: kuangliu/pytorch-cifar's ResNet18. By hand, for the thin one: 464 + 4,672 + 14,528 + 57,728 + 650.
    with torch.device("meta"):
        model, x, seen = WORKLOADS[name].model().eval(), torch.zeros(2, 3, 32, 32), []
    for module in model:
        x = module(x)
        if type(module).__name__ == "_Residual":
            seen.append(x.shape[-1])
    assert sum(p.numel() for p in model.parameters()) == count
    assert (seen, x.shape) == (sides, (2, 10))


@pytest.mark.data
def test_the_sheets_hold_the_images_that_they_were_made_of():
    real("cifar-10", "train-labels.npy")
    _, test = load_cifar10(real())
    images, labels = test.tensors
    assert labels.bincount().tolist() == [1000] * 10
    decoded = hashlib.sha256()  # of the bytes, image by image, colours last
    for part in images.split(1000):
        decoded.update(part.permute(0, 2, 3, 1).contiguous().numpy().data)
    assert decoded.hexdigest() == "e1218b2bf607f0424fa62842da65b909fef1b4ef63093191d2b4c1fccf10c0e7"
