"""The study of optimizers sees what is wrong with one, and says of a sample what the page says; the rest is slow."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.optim import SGD, AdamW

from autolr_lab.studies.optimizers import checks
from autolr_lab.studies.optimizers.candidates import Candidate, candidates
from autolr_lab.studies.optimizers.checks import CHECKS, Digits, check
from autolr_lab.studies.optimizers.study import tables

TASK = Digits()
TORCH = {"torch.optim": "torch"}


def of(kind: Any, **settings: Any) -> Candidate:
    return Candidate("test", kind.__name__, "1", lambda model: kind(list(model.parameters()), **settings))


def torchs(name: str) -> Candidate:
    return next(one for one in candidates(TORCH) if one.name == name)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Muon"])
def test_a_good_optimizer_passes_each_check(name: str):
    row = check(torchs(name), TASK, peak=False)
    assert {key: row.get(key) for key in ("outcome", *CHECKS) if key != "near"} == {
        "outcome": "accepted", "innocent": "yes", "resume": "yes", "rollback": "yes", "no trace": "yes",
    }  # fmt: skip


def test_its_peak_is_searched_and_compared_with_a_grid(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checks, "WHOLE", 60)
    row = check(torchs("AdamW"), TASK)
    assert row["near"] in {"yes", "no"}
    assert row["ratio"] == pytest.approx(row["peak"] / row["grid"])
    assert row["given"] == 1e-3
    assert row["regret"] > -1


def test_one_that_is_refused_or_cannot_be_used_so_says_why():
    assert check(torchs("Rprop"), TASK) | {"version": ""} == {
        "package": "torch", "version": "", "optimizer": "Rprop", "outcome": "refused",
        "why": check(torchs("Rprop"), TASK)["why"],
    }  # fmt: skip
    assert "do not depend on the learning rate" in check(torchs("Rprop"), TASK)["why"]
    assert check(torchs("LBFGS"), TASK)["outcome"] == "cannot be used so"


COUNTER = itertools.count()


class Elsewhere(SGD):
    """Its step depends on how many there were in this process: on nothing that could be put back."""

    def step(self, _: Any = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.add_(p.grad, alpha=-0.01 * (1 + next(COUNTER) % 7))


class Forgetful(AdamW):
    """Leaves its state out of what it saves."""

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"state": {}}


class Broken(SGD):
    def step(self, _: Any = None) -> Any:  # type: ignore[override]
        if self.param_groups[0]["lr"] != 0.01:
            raise KeyError("no such rate")
        return super().step()


def test_what_cannot_be_put_back_is_seen():
    row = check(of(Elsewhere, lr=0.01), TASK, peak=False)
    assert (row["innocent"], row["rollback"], row["no trace"]) == ("no", "no", "no")
    assert row["resume"] == "no, nor by itself"


def test_what_an_optimizer_forgets_by_itself_is_not_laid_at_our_door():
    row = check(of(Forgetful, lr=0.01), TASK, peak=False)
    assert row["resume"] == "no, nor by itself"
    assert row["innocent"] == "yes"


def test_one_that_fails_under_autolr_is_no_accepted_one():
    row = check(of(Broken, lr=0.01), TASK, peak=False)
    assert row["outcome"] == "fails"
    assert "no such rate" in row["why"]


def test_tables_have_a_line_for_each_and_no_stray_bars():
    good = {"package": "a", "version": "1", "optimizer": "A", "outcome": "accepted", "innocent": "yes", "resume": "yes",
            "rollback": "yes", "no trace": "no", "near": "yes", "ratio": 1.5, "regret": 0.1, "told": False}  # fmt: skip
    bad = {"package": "a", "version": "1", "optimizer": "B", "outcome": "refused", "why": "x | y"}
    made = tables([good, bad])
    assert "| a 1 | 2 | 1 | 1 of 1 | 1 of 1 | 1 of 1 | 0 of 1 | 1 of 1 | 1 | 0 | 0 |" in made["packages"]
    assert "| a | A | yes | yes | yes | no | 1.5 (untold) | +0.10 |" in made["accepted"]
    assert "| a | B | refused | x / y |" in made["not"]


@pytest.mark.slow
def test_every_optimizer_that_is_accepted_is_undisturbed():
    rows = [check(candidate, TASK, peak=False) for candidate in candidates()]
    accepted = [row for row in rows if row["outcome"] == "accepted"]
    assert len(accepted) > 10
    disturbed = [
        row for row in accepted if (row["innocent"], row["no trace"]) != ("yes", "yes") or row["resume"] == "no"
    ]
    assert disturbed == []
