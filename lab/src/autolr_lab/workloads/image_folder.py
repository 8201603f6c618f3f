"""Images in folders, one for each class: ``train/<class>/<image>`` and ``val/<class>/<image>``, or a .zip of them.

torchvision's ``ImageFolder`` reads folders alone, not a .zip in place, and is not a dependency.
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

from autolr_lab.workloads.workload import MissingDataError, broken, data_root

SPLITS = ("train", "val")
ENDINGS = (".jpeg", ".jpg", ".png")  # one of ImageNet's .JPEG is a PNG: Pillow looks at the content

Listed = list[tuple[str, int]]  # name of an image, number of its class


class ImageFiles:
    """The files below a folder or in a .zip, which is read in place.

    Each process opens a .zip for itself: processes that share an open file share the place where they read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def names(self) -> list[str]:
        """Every file that lies as deep as an image."""
        if self.path.suffix == ".zip":
            return self._archive().namelist()
        classes = [(split, c.name) for split in SPLITS for c in os.scandir(self.path / split) if c.is_dir()]
        return [f"{split}/{c}/{image.name}" for split, c in classes for image in os.scandir(self.path / split / c)]

    def picture(self, name: str) -> Any:
        """One image, as a Pillow picture in red, green and blue."""
        from PIL import Image

        zipped = self.path.suffix == ".zip"
        content = self._archive().read(name) if zipped else (self.path / name).read_bytes()
        try:
            with Image.open(io.BytesIO(content)) as picture:
                return picture.convert("RGB")
        except OSError as error:
            raise broken(self.path / name, f"it is no image that can be read ({error})") from error

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def _archive(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.path)
        return self._opened[1]


def list_images(files: ImageFiles) -> tuple[Listed, Listed, list[str]]:
    """The images to train on, those to evaluate on, and the classes, numbered in the order of their names.

    Raises:
        MissingDataError: no images, or a class to evaluate on that is not trained on.
    """
    parts = [(name, name.split("/")) for name in files.names() if name.lower().endswith(ENDINGS)]
    images = [(name, p) for name, p in parts if len(p) in {3, 4} and p[-3] in SPLITS and not p[-1].startswith(".")]
    of = {split: sorted((p[-2], name) for name, p in images if p[-3] == split) for split in SPLITS}
    classes = sorted({kind for kind, _ in of["train"]})
    if not classes or not of["val"] or not {kind for kind, _ in of["val"]} <= set(classes):
        raise broken(files.path, "it needs train/<class>/<image>, and val/ of the same classes")
    number = {kind: n for n, kind in enumerate(classes)}
    train, val = ([(name, number[kind]) for kind, name in of[split]] for split in SPLITS)
    return train, val, classes


def find_images(data_dir: Path | None, folder: str, source: str) -> ImageFiles:
    """``folder`` or ``folder.zip`` in the data folder; the .zip may lie inside the folder.

    Raises:
        MissingDataError: not found; it names ``source``, where to get them.
    """
    root = data_root(data_dir)
    places = [root / folder, root / folder / f"{folder}.zip", root / f"{folder}.zip"]
    for place in places:
        if place.is_file() or all((place / split).is_dir() for split in SPLITS):
            return ImageFiles(place)
    raise MissingDataError(
        f"The images of {folder} were not found. Looked in {', '.join(map(str, places))}. Get them from {source}; lay "
        f"them out as train/<class>/<image> and val/<class>/<image> in {places[0]}, or name the folder around it: "
        "--data-dir DIR or AUTOLR_DATA."
    )
