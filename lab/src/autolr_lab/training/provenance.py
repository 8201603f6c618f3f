"""Where a number comes from: what a run folder or a record needs so that it can be run again."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autolr import __version__

PLACES = ("--runs", "--records", "--out", "--data-dir", "--folder", "--picture")  # options that name a folder


def provenance() -> dict[str, str | int | None]:
    """Command, version, commit, time, machine and library versions."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "version": __version__,
        "commit": COMMIT,
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {_processor()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def portable(about: dict[str, Any]) -> dict[str, Any]:
    """Provenance whose command names no folders: another machine has them elsewhere."""
    words = shlex.split(about.get("command") or "")
    kept = [w for w, before in zip(words, ["", *words], strict=False) if w not in PLACES and before not in PLACES]
    return {**about, "command": shlex.join(w for w in kept if not w.startswith(tuple(f"{p}=" for p in PLACES)))}


def _commit() -> str | None:
    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=here, check=True, capture_output=True, text=True).stdout.strip()

    here = Path(__file__).parents[1]
    try:
        git("ls-files", "--error-unmatch", str(Path(__file__)))  # else the checkout is of a project that installed us
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(top)src/autolr")
        return head + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown processor")


# The commit of the code that runs, taken at import, since the tree may move on under a long run. ``+``: files of the
# lab or the library differ from it. None: an installed copy.
COMMIT = _commit()
