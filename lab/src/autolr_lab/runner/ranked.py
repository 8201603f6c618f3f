"""A run that several processes train, started by torchrun from a process that carries out many runs.

``python -m torch.distributed.run ... -m autolr_lab.runner.ranked FOLDER SETTINGS EVERY`` is one of its processes.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from autolr_lab.training.access import RunError
from autolr_lab.training.runs import Settings

SHOWN = 2000  # characters of what a failed run said


def train_by_ranks(settings: Settings, folder: Path, every: float) -> None:
    """Train ``settings`` in as many processes as they say.

    Raises:
        RunError: a process failed; with the end of what it said.
    """
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(settings.ranks),
        "-m", "autolr_lab.runner.ranked", str(folder), json.dumps(dataclasses.asdict(settings)), str(every),
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"{settings.ranks} processes failed with {done.returncode}: {done.stderr[-SHOWN:]}")


def main() -> None:
    """One of them."""
    from autolr_lab.training.training import train

    folder, settings, every = sys.argv[1:]
    train(Settings.from_dict(json.loads(settings)), Path(folder), resume=True, every=float(every))


if __name__ == "__main__":
    main()
