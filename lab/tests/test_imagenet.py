"""ImageNet: the published network, images read right or refused with a word, and augmentation that can be repeated."""

import dataclasses
import itertools
import math
import zipfile
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from autolr_lab.training.runs import Settings, read_run
from autolr_lab.training.training import train
from autolr_lab.workloads import WORKLOADS, MissingDataError
from autolr_lab.workloads.imagenet import MEAN, STD, Images, load_images, middle_view, random_box, random_view
from autolr_lab.workloads.resnet import Bottleneck, resnet50
from helpers import Killed, comparable, killed_after, real, seed_everything

CPU = torch.device("cpu")
IMAGENET, TINY = WORKLOADS["imagenet"], WORKLOADS["tiny-imagenet-10"]
KINDS = ["n01", "n02", "n03"]


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def write_tree(root, *, train=4, val=2, size=(70, 80), kinds=KINDS):
    """A few random images of each class, in the order of their seeds: PNGs, whatever their names end in."""
    seed = itertools.count()
    for split, n in (("train", train), ("val", val)):
        for kind in kinds:
            (root / split / kind).mkdir(parents=True, exist_ok=True)
            for i in range(n):
                picture(*size, next(seed)).save(root / split / kind / f"{kind}_{i}.JPEG", format="PNG")
    return root


def write_zip(tree, path, inside=""):
    """The tree as a .zip, backwards: what comes first in it is to be of no matter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(tree.rglob("*"), reverse=True):
            archive.write(file, f"{inside}{file.relative_to(tree).as_posix()}")
    return path


def load(data_dir, folder="images", side=32, shorter=40):
    return load_images(data_dir, folder, side, shorter, "https://example.org/")


def everything(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# The network.


def test_resnet_50_has_torchvisions_number_of_parameters_and_buffers():
    with torch.device("meta"):
        model = IMAGENET.model()
    assert sum(p.numel() for p in model.parameters()) == 25_557_032
    assert len(model.state_dict()) == 320  # torchvision's: 161 parameters, and 3 buffers of each of 53 BatchNorms
    assert len(list(model.parameters())) == 161


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("conv1.weight", (64, 3, 7, 7)),
        ("bn1.running_mean", (64,)),
        ("layer1.0.conv1.weight", (64, 64, 1, 1)),
        ("layer1.0.downsample.0.weight", (256, 64, 1, 1)),
        ("layer1.0.downsample.1.num_batches_tracked", ()),
        ("layer2.3.conv2.weight", (128, 128, 3, 3)),
        ("layer3.5.bn3.bias", (1024,)),
        ("layer4.0.conv1.weight", (512, 1024, 1, 1)),
        ("layer4.2.conv3.weight", (2048, 512, 1, 1)),
        ("fc.weight", (1000, 2048)),
        ("fc.bias", (1000,)),
    ],
)
def test_weights_have_torchvisions_names_and_shapes(name, shape):
    with torch.device("meta"):
        assert resnet50(classes=1000).state_dict()[name].shape == shape


def test_the_3_by_3_convolution_of_a_stages_first_block_halves_the_image_and_no_other():
    with torch.device("meta"):
        model = resnet50(classes=10)
    strides = {name: conv.stride[0] for name, conv in model.named_modules() if isinstance(conv, nn.Conv2d)}
    halving = {name for name, stride in strides.items() if stride == 2}
    stages = ("layer2.0", "layer3.0", "layer4.0")
    assert halving == {"conv1", *(f"{s}.conv2" for s in stages), *(f"{s}.downsample.0" for s in stages)}
    assert set(strides.values()) == {1, 2}


@torch.no_grad()
def test_a_block_is_its_three_convolutions_beside_its_input():
    torch.manual_seed(0)
    block, x = Bottleneck(8, 16, 2).double().eval(), torch.randn(2, 8, 6, 6, dtype=torch.float64)
    for norm in (block.bn1, block.bn2, block.bn3, block.downsample[1]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)

    def normed(y, norm):
        mean, var = (of.view(1, -1, 1, 1) for of in (norm.running_mean, norm.running_var))
        return (y - mean) / (var + 1e-5).sqrt()

    y = normed(F.conv2d(x, block.conv1.weight), block.bn1).relu()
    y = normed(F.conv2d(y, block.conv2.weight, stride=2, padding=1), block.bn2).relu()
    y = normed(F.conv2d(y, block.conv3.weight), block.bn3)
    short = normed(F.conv2d(x, block.downsample[0].weight, stride=2), block.downsample[1])
    assert torch.allclose(block(x), (y + short).relu())
    assert Bottleneck(16, 16, 1).downsample is None


# The files.


def test_a_class_has_the_number_of_its_name_and_an_image_is_itself(tmp_path):
    write_tree(tmp_path / "images", kinds=["n9", "n10", "b"])
    train_data, val = load(tmp_path, side=70, shorter=70)
    assert train_data.classes == val.classes == ["b", "n10", "n9"]
    assert [label for _, label in train_data.images] == [0] * 4 + [1] * 4 + [2] * 4
    assert [label for _, label in val.images] == [0] * 2 + [1] * 2 + [2] * 2
    image, label = val[4]  # the first of n9: the 13th written
    assert label == 2
    pixels = torch.from_numpy(np.array(picture(70, 80, 12))).double()[5:75] / 255  # the middle 70 rows of 80
    by_hand = (pixels - torch.tensor(MEAN)) / torch.tensor(STD)
    assert image.dtype == torch.float32
    assert torch.allclose(image.permute(1, 2, 0).double(), by_hand, atol=1e-5)  # float32 of numbers up to 2.7


@pytest.mark.parametrize(
    ("place", "inside"), [("images.zip", ""), ("images/images.zip", ""), ("images/images.zip", "images/")]
)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_tree_and_a_zip_give_the_same_images(tmp_path, place, inside, workers):
    tree = write_tree(tmp_path / "a" / "images", train=8)
    write_zip(tree, tmp_path / "b" / place, inside)
    task = dataclasses.replace(TINY, workers=workers)
    for split in (0, 1):
        seen = []
        for folder in ("a", "b"):
            torch.manual_seed(0)
            data = load(tmp_path / folder)[split]
            seen.append(everything(task.train_batches(data, 3, torch.Generator().manual_seed(0))))
        assert same(*seen)
        assert seen[0][0].unique(dim=0).shape == (24 if split == 0 else 6, 3, 32, 32)


def test_strange_files_are_passed_over_and_images_of_other_modes_become_red_green_and_blue(tmp_path):
    tree = write_tree(tmp_path / "images")
    for stray in ("train/n01/notes.txt", "val/.DS_Store", "train/n01/._n01_0.JPEG", "test/n01/a.JPEG"):
        (tree / stray).parent.mkdir(parents=True, exist_ok=True)
        (tree / stray).write_bytes(b"no image")
    for i, mode in enumerate(("L", "RGBA", "P", "CMYK")):
        picture(40, 40).convert(mode).save(tree / "train" / "n01" / f"n01_{i}.JPEG", format="TIFF")
    train_data, val = load(tmp_path)
    assert (len(train_data), len(val)) == (12, 6)
    for i in range(4):
        assert train_data[i][0].shape == (3, 32, 32)
    write_zip(tree, tmp_path / "other" / "images.zip")
    assert [data.images for data in load(tmp_path / "other")] == [train_data.images, val.images]


def test_images_that_are_missing_damaged_or_of_classes_that_are_never_trained_on_are_refused(tmp_path):
    with pytest.raises(MissingDataError, match=r"images of images were not found.*https://example\.org/"):
        load(tmp_path)
    tree = write_tree(tmp_path / "images")
    data = load(tmp_path)[1]
    (tree / "val" / "n02" / "n02_1.JPEG").write_bytes(b"GIF, and no more")
    with pytest.raises(MissingDataError, match=r"n02_1\.JPEG is not what it should be: it is no image"):
        data[3]
    (tree / "train" / "n02").rename(tree / "n02")
    with pytest.raises(MissingDataError, match="it needs train/<class>/<image>, and val/ of the same classes"):
        load(tmp_path)


# Augmentation.


@given(width=st.integers(1, 900), height=st.integers(1, 900), seed=st.integers(0, 2**32))
def test_a_random_part_lies_in_its_image_and_has_an_allowed_share_and_ratio(width, height, seed):
    torch.manual_seed(seed)
    left, top, right, bottom = random_box(width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    w, h = right - left, bottom - top
    # Each side is rounded to a whole pixel: half a pixel up or down.
    assert (w - 0.5) / (h + 0.5) <= 4 / 3
    assert (w + 0.5) / (h - 0.5) >= 3 / 4
    fits = min(width, height) / max(width, height) > 3 / 4  # else the middle was taken, perhaps
    assert not fits or (w + 0.5) * (h + 0.5) >= 0.08 * width * height


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((1000, 30), (480, 0, 520, 30)),  # 40 x 30: a ratio of 4/3
        ((30, 1000), (0, 480, 30, 520)),  # 3/4
        ((1, 1), (0, 0, 1, 1)),
    ],
)
def test_of_an_image_too_narrow_for_any_part_the_middle_is_taken(size, box):
    torch.manual_seed(0)
    assert Counter(random_box(*size) for _ in range(50)).most_common(1)[0][0] == box


def test_shares_and_ratios_are_even_and_every_pixel_is_reached():
    torch.manual_seed(0)
    n, side = 4000, 300
    boxes = np.array([random_box(side, side) for _ in range(n)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    ratios = np.log(w / h) / math.log(4 / 3)
    assert np.abs(ratios).max() < 1.02
    assert ratios.mean() == pytest.approx(0, abs=4 / math.sqrt(3 * n))  # four standard errors; even: variance 1/3
    shares = w * h / side**2
    assert shares.min() == pytest.approx(0.08, abs=0.005)
    assert shares.max() > 0.98
    # Small parts fit always: between 0.1 and 0.3 the shares are even.
    small = shares[(shares > 0.1) & (shares < 0.3)]
    assert small.mean() == pytest.approx(0.2, abs=4 * 0.2 / math.sqrt(12 * len(small)))
    seen = np.zeros((side, side), int)
    for left, top, right, bottom in boxes:
        seen[top:bottom, left:right] += 1
    assert seen.min() > 0


def test_half_the_views_are_mirrored_and_none_is_upside_down():
    # Red grows to the right, green to the bottom.
    torch.manual_seed(0)
    across, down = np.meshgrid(np.arange(100), np.arange(100))
    ramp = Image.fromarray(np.stack([across, down, 0 * down], 2).astype(np.uint8))
    n, mirrored = 1000, 0
    for _ in range(n):
        view = np.asarray(random_view(ramp, 24)).astype(int)
        assert view.shape == (24, 24, 3)
        assert view[-1, 0, 1] > view[0, 0, 1]
        assert view[0, -1, 0] != view[0, 0, 0]
        mirrored += view[0, -1, 0] < view[0, 0, 0]
    assert mirrored / n == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(n))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (257, 400), (100, 90)])
def test_the_middle_is_cut_out_after_scaling_the_shorter_side_to_256(size):
    across, down = np.meshgrid(np.linspace(0, 250, size[0]), np.linspace(0, 250, size[1]))
    view = middle_view(Image.fromarray(np.stack([across, down, down], 2).astype(np.uint8)), 224, 256)
    assert view.size == (224, 224)
    pixels = np.asarray(view).astype(float)
    # 224 of each side's scaled length, and the middle of the ramp in the middle of the view.
    for axis, side in ((0, size[0]), (1, size[1])):
        line = pixels[112, :, 0] if axis == 0 else pixels[:, 112, 1]
        scaled = 256 * side / min(size)
        assert line[-1] - line[0] == pytest.approx(
            250 * side / (side - 1) * 223 / scaled, abs=2
        )  # whole grey levels, twice
        assert line[0] + line[-1] == pytest.approx(250, abs=3)


def test_an_image_to_evaluate_on_is_the_same_each_time_and_draws_nothing(tmp_path):
    write_tree(tmp_path / "images")
    val = load(tmp_path)[1]
    before = torch.get_rng_state()
    assert torch.equal(val[0][0], val[0][0])
    batches = TINY.test_batches(val)
    assert same(everything(batches), everything(batches))
    assert torch.equal(torch.get_rng_state(), before)
    assert everything(batches)[1].tolist() == [0, 0, 1, 1, 2, 2]


# Minibatches.


def epochs(data, workers, state=None, batch_size=5, passes=2):
    """A few epochs, each as images and labels, and the generator's state before each."""
    order = torch.Generator().manual_seed(0)
    if state is not None:
        order.set_state(state)
    batches = dataclasses.replace(TINY, workers=workers).train_batches(data, batch_size, order)
    torch.manual_seed(0)
    seen, states = [], []
    for _ in range(passes):
        states.append(order.get_state())
        seen.append(everything(batches))
    return seen, states


def test_an_epoch_is_repeated_at_its_seed_and_the_next_one_is_another(tmp_path):
    write_tree(tmp_path / "images")
    data = load(tmp_path)[0]
    (first, second), _ = epochs(data, workers=0)
    (again, _), _ = epochs(data, workers=0)
    assert same(first, again)
    assert not torch.equal(first[0], second[0])
    assert sorted(first[1].tolist()) == sorted(second[1].tolist()) == [0] * 4 + [1] * 4 + [2] * 4
    assert not torch.equal(first[1], second[1])  # shuffled


@pytest.mark.slow
def test_with_workers_an_epoch_is_a_function_of_the_orders_state_whatever_their_number(tmp_path):
    write_tree(tmp_path / "images")
    data = load(tmp_path)[0]
    (first, second), (_, state) = epochs(data, workers=1)
    for workers in (1, 2):
        (again, then), _ = epochs(data, workers)
        assert same(first, again)
        assert same(second, then)
    (resumed,), _ = epochs(data, 2, state, passes=1)
    assert same(second, resumed)
    assert not torch.equal(first[0].sort(0).values, second[0].sort(0).values)  # other parts, not only another order
    # Two images that are one: each has its own part.
    data.images = [data.images[0]] * 12
    ((images, _),), _ = epochs(data, 2, passes=1)
    assert images.unique(dim=0).shape[0] == 12


def test_the_network_has_the_classes_of_the_data(tmp_path):
    write_tree(tmp_path / "tiny-imagenet-10")
    assert TINY.network(tmp_path).fc.out_features == 3
    assert isinstance(TINY.datasets(tmp_path)[0], Images)


# Evaluation.


class Scores(nn.Module):
    """Gives what it is told as scores, whatever it sees."""

    def forward(self, x):
        return x


def test_loss_top_1_and_top_5_are_as_counted_by_hand():
    n, classes = 40, 9
    scores = torch.randn(n, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(n) % classes
    seen = TINY.evaluate(Scores(), zip(scores.split(7), labels.split(7), strict=True), CPU)
    rows = list(zip(scores.tolist(), labels.tolist(), strict=True))
    places = [sum(score > row[label] for score in row) for row, label in rows]
    losses = [math.log(sum(map(math.exp, row))) - row[label] for row, label in rows]
    assert seen == {
        "loss": pytest.approx(sum(losses) / n),
        "accuracy": sum(place == 0 for place in places) / n,
        "accuracy_top5": sum(place < 5 for place in places) / n,
    }
    assert 0 < seen["accuracy"] < seen["accuracy_top5"] < 1


# Training.


def settings(data_dir, **changes):
    plain = {"workload": "tiny-imagenet-10", "optimizer": "momentum", "schedule": "fixed", "lr": 0.01, "epochs": 2}
    return Settings(**plain | {"batch_size": 4, "seed": 0, "data_dir": str(data_dir)} | changes)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_tree(root / "tiny-imagenet-10", train=12, size=(64, 64))
    write_zip(root / "tiny-imagenet-10", root / "imagenet.zip")
    return root


def test_a_run_leaves_loss_and_both_accuracies_of_each_epoch(tree, tmp_path):
    result = train(settings(tree), tmp_path / "run")
    rows = read_run(tmp_path / "run").epochs
    assert [row["step"] for row in rows] == [9, 18]
    for name in ("train_loss", "test_loss", "test_accuracy", "test_accuracy_top5"):
        assert math.isfinite(result[name])
        assert result[name] == rows[-1][name]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_killed_within_an_epoch_goes_on_with_the_same_views_of_the_same_images(
    tree, tmp_path, workers, monkeypatch
):
    monkeypatch.setitem(WORKLOADS, TINY.name, dataclasses.replace(TINY, workers=workers))
    asked = settings(tree, schedule="monitor", policy={"window": 3, "superbatch": 2})
    train(asked, tmp_path / "whole")
    with pytest.raises(Killed):
        train(asked, tmp_path / "run", killed_after(5), every=0)
    seed_everything(99)
    train(asked, tmp_path / "run", resume=True)
    assert comparable(tmp_path / "run") == comparable(tmp_path / "whole")


@pytest.mark.data
def test_the_ten_classes_are_read_from_their_zip():
    real("tiny-imagenet-10", "tiny-imagenet-10.zip")
    data = TINY.datasets(real())
    assert [Counter(label for _, label in part.images) for part in data] == [
        Counter(dict.fromkeys(range(10), n)) for n in (200, 50)
    ]
    assert data[0].classes == data[1].classes
    images, _ = everything(TINY.test_batches(data[1]))
    assert images.shape == (500, 3, 64, 64)
    # As of ImageNet: each colour's mean within 0.3 of its standard deviation, and that within a third.
    assert images.mean((0, 2, 3)).abs().max() < 0.3
    assert images.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=0.33)
