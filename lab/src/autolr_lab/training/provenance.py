"""Where a number comes from: what a run folder and a benchmark record must say to be run again."""

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


PLACES = ("--runs", "--records", "--out", "--data-dir", "--folder", "--picture")


def portable(about: dict[str, Any]) -> dict[str, Any]:
    """Provenance whose command has no options that say where things lay: another machine has them elsewhere."""
    words = shlex.split(about.get("command") or "")
    kept = [w for w, before in zip(words, ["", *words], strict=False) if w not in PLACES and before not in PLACES]
    return {**about, "command": shlex.join(w for w in kept if not w.startswith(tuple(f"{p}=" for p in PLACES)))}


def _git(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _commit() -> str | None:
    here = Path(__file__).parent
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name, cwd=here)  # not a project we are installed in
        head = _git("rev-parse", "--short=12", "HEAD", cwd=here)
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", cwd=here)
        return head + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        "unknown processor",
    )


# The commit of the code that runs: taken as it is imported, since the tree may move on under a long run. ``+`` where
# the package's own files differ from that commit, None for an installed copy.
COMMIT = _commit()
