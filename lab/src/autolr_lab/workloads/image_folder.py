"""Images in folders, one for each class: ``train/<class>/<image>`` and ``val/<class>/<image>``, or a .zip of them."""

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


class Folder:
    """The images below a folder, by their place in it: ``train/<class>/<image>``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """Every file that lies as deep as an image."""
        classes = [(split, c.name) for split in SPLITS for c in os.scandir(self.path / split) if c.is_dir()]
        return [f"{split}/{c}/{image.name}" for split, c in classes for image in os.scandir(self.path / split / c)]

    def read(self, name: str) -> bytes:
        """The content of one."""
        return (self.path / name).read_bytes()


class Zip:
    """The same in a .zip, read in place; the whole may be in one folder more.

    Each process opens the file for itself: processes that share an open file share the place where they read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def names(self) -> list[str]:
        """Every file in it."""
        try:
            return self._archive().namelist()
        except (OSError, zipfile.BadZipFile) as error:
            raise broken(self.path, f"it cannot be opened ({error})") from error

    def read(self, name: str) -> bytes:
        """The content of one."""
        return self._archive().read(name)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def _archive(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.path)
        return self._opened[1]


def list_images(files: Folder | Zip) -> tuple[Listed, Listed, list[str]]:
    """The images to train on, those to evaluate on, and the classes; a class has the number of its name when sorted.

    Raises:
        MissingDataError: no images, or a class to evaluate on that is not trained on.
    """
    parts = [(name, name.split("/")) for name in files.names() if name.lower().endswith(ENDINGS)]
    images = [(name, p) for name, p in parts if len(p) in {3, 4} and p[-3] in SPLITS and not p[-1].startswith(".")]
    if len({tuple(p[:-3]) for _, p in images}) > 1:
        raise broken(files.path, "it has train/ or val/ in more than one folder")
    of = {split: sorted((p[-2], name) for name, p in images if p[-3] == split) for split in SPLITS}
    for split in SPLITS:
        if not of[split]:
            raise broken(files.path, f"it has no images {split}/<class>/<image> that end in {', '.join(ENDINGS)}")
    classes = sorted({kind for kind, _ in of["train"]})
    if unknown := sorted({kind for kind, _ in of["val"]}.difference(classes)):
        raise broken(files.path, f"val/ has classes that train/ has no images of: {', '.join(unknown)}")
    number = {kind: n for n, kind in enumerate(classes)}
    train, val = ([(name, number[kind]) for kind, name in of[split]] for split in SPLITS)
    return train, val, classes


def read_picture(files: Folder | Zip, name: str) -> Any:
    """One image, as a Pillow picture in red, green and blue.

    Raises:
        MissingDataError: missing or damaged.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(files.read(name))) as picture:
            return picture.convert("RGB")
    except Exception as error:  # damaged files lead Pillow and zipfile to exceptions of a dozen kinds
        raise broken(files.path / name, f"it is no image that can be read ({error})") from error


def find_images(data_dir: Path | None, folder: str, source: str) -> Folder | Zip:
    """Where the images are, below ``data_dir`` or the folder that AUTOLR_DATA names.

    Looked for: ``folder``, ``folder.zip`` (also inside ``folder``), then the data folder itself.

    Raises:
        MissingDataError: not found; it names ``source``, where to get them.
    """
    root = data_root(data_dir)
    places = [root / folder, root / folder / f"{folder}.zip", root / f"{folder}.zip", root]
    for place in places:
        if place.suffix == ".zip" and place.is_file():
            return Zip(place)
        if all((place / split).is_dir() for split in SPLITS):
            return Folder(place)
    looked = "\n".join(f"  {place}" + ("" if place.suffix == ".zip" else "/ for train/ and val/") for place in places)
    raise MissingDataError(
        f"The images of {folder} were not found. Looked in\n{looked}\n"
        f"Get them from {source}; lay them out as train/<class>/<image> and val/<class>/<image> in {places[0]}/, or "
        "name their folder: --data-dir DIR or AUTOLR_DATA."
    )
