"""Two real ranks by DDP over gloo, in each framework: half as many steps, one decision, the same weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_ranks.py")


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.mark.distributed
@pytest.mark.parametrize(("framework", "steps"), [("lightning", 40), ("transformers", 48), ("accelerate", 40)])
def test_two_ranks_are_one_run(framework: str, steps: int, tmp_path: Path):
    pytest.importorskip(framework)
    pytest.importorskip("accelerate")  # Transformers' trainer needs it too
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    done = subprocess.run(
        [*launch, str(SCRIPT), framework, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["steps"] == first["total"] == steps
