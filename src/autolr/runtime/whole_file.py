"""A file that is replaced: what was there stays until all of the new one is written."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path


def write_whole(file: Path, text: str, *, errors: str = "strict") -> None:
    """Write a text, or leave the file as it was. A link stays one; what is no file (a pipe, a device) is written to.

    Raises:
        OSError: it cannot be written.
    """
    place = Path(os.path.realpath(file))
    if file.exists() and not file.is_file():
        file.write_text(text, encoding="utf8", errors=errors)
        return
    unfinished = place.with_name(place.name + ".part")
    try:
        try:
            unfinished.write_text(text, encoding="utf8", errors=errors)
        except PermissionError:  # into the folder: the file itself may be written all the same
            place.write_text(text, encoding="utf8", errors=errors)
            return
        if place.exists():
            shutil.copymode(place, unfinished)
        unfinished.replace(place)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
