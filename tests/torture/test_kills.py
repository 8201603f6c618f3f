"""A training that is killed at any moment and goes on from its checkpoint ends as if nothing had been: to the bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SHARE = int(os.environ.get("AUTOLR_TORTURE_SHARE", "1"))
POLICIES = ["PeakSearch()", "ExploreExploit()", "ExploreExploit.adaptive()", "Monitor()"]
KILLS = 130  # of each policy


def killed(policy: str, kills: int, seed: int = 0) -> dict[str, Any]:
    program = Path(__file__).with_name("killed_runs.py")
    done = subprocess.run(  # noqa: PLW1510 - its word is wanted first
        [sys.executable, str(program), policy, str(kills), str(seed)], capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.torture
@pytest.mark.parametrize("policy", POLICIES)
def test_runs_killed_at_random_moments_end_as_the_uninterrupted_one(policy: str, record_property: Any) -> None:
    told = killed(policy, KILLS // SHARE)
    record_property("kills", told["kills"])
    assert told["kills"] >= KILLS // SHARE
    assert told["without"] < told["kills"], "no run had a checkpoint to go on from"
    assert told["unequal"] == [], told


@pytest.mark.long
def test_a_few_killed_runs_end_as_the_uninterrupted_one() -> None:
    assert killed("ExploreExploit()", 3)["unequal"] == []
