"""A hundred thousand inputs that nobody should give: each is refused in words, by an error that is documented."""

from __future__ import annotations

import copy
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from damaged_files import COMMANDS, DOCUMENTED, HOSTILE, READERS, as_text, command, damaged, places, quietly
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import autolr
from test_damaged_checkpoint import REMOVED, same, told
from test_damaged_checkpoint import altered as altered_state
from test_damaged_checkpoint import made as made_for_a_checkpoint
from test_damaged_checkpoint import train as train_for_a_checkpoint

SHARE = int(os.environ.get("AUTOLR_TORTURE_SHARE", "1"))
FILES, CALLS, RUNS, GUIDED, ALTERED = (n // SHARE for n in (9_000, 500, 2_000, 40_000, 2_000))


def read_many(name: str, folder: Path, count: int) -> dict[str, int]:
    """What came of so many damaged files."""
    make, read = READERS[name]
    rows, file, came = make(), folder / "log.jsonl", dict[str, int]()
    for number in range(count):
        file.write_bytes(damaged(rows, random.Random(f"{name} {number}")))
        try:
            outcome = quietly(lambda: read(file))
        except Exception as error:
            raise AssertionError(f"damaged file {number} of {name!r}: {error!r}") from error
        came[outcome] = came.get(outcome, 0) + 1
    return came


@pytest.mark.torture
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused_in_words(name: str, tmp_path: Path, record_property: Any) -> None:
    came = read_many(name, tmp_path, FILES)
    record_property("inputs", sum(came.values()))
    assert "without a word" not in came


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_a_few_damaged_files_are_read_or_refused_in_words(name: str, tmp_path: Path) -> None:
    came = read_many(name, tmp_path, 40)
    assert "without a word" not in came
    assert sum(came.values()) == 40


@pytest.mark.torture
@pytest.mark.parametrize(("name", "options"), COMMANDS, ids=lambda v: v if isinstance(v, str) else "_".join(v))
def test_a_command_on_a_damaged_log_ends_with_a_sentence(
    name: str, options: list[str], tmp_path: Path, record_property: Any
) -> None:
    rows, file = READERS["read_run, explain, watch"][0](), tmp_path / "[b]\x1b[31m.jsonl"
    for number in range(CALLS):
        file.write_bytes(damaged(rows, random.Random(f"{name} {options} {number}")))
        command([name, str(file), *options])
    record_property("inputs", CALLS)


CHECKPOINTS = {
    "PeakSearch": autolr.PeakSearch(peak=0.02),
    "ExploreExploit": autolr.ExploreExploit(window=4, superbatch=3, spread=2),
    "literal": autolr.LiteralExploreExploit(window=4, superbatch=3),
    "Monitor": autolr.Monitor(window=4, superbatch=3),
}


@pytest.mark.torture
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_an_altered_checkpoint_is_loaded_or_refused_in_words_and_then_nothing_has_changed(
    name: str, record_property: Any
) -> None:
    model, optimizer = made_for_a_checkpoint(CHECKPOINTS[name])
    train_for_a_checkpoint(model, optimizer, 14)
    state, refused = optimizer.state_dict(), list[str]()
    model, optimizer = made_for_a_checkpoint(CHECKPOINTS[name])
    where = [path for path in places(state) if path]
    before = told(model, optimizer)
    for number in range(ALTERED):
        dice = random.Random(f"{name} {number}")
        wrong = altered_state(state, dice.choice(where), copy.deepcopy(dice.choice([REMOVED, *HOSTILE])))
        try:
            optimizer.load_state_dict(wrong)
        except DOCUMENTED as error:
            refused.append(str(error))
            if number % 20 == 0:
                assert same(told(model, optimizer), before), number
        else:
            model, optimizer = made_for_a_checkpoint(CHECKPOINTS[name])
    assert same(told(model, optimizer), before)
    assert len(refused) > ALTERED // 2
    assert all(refused)
    record_property("inputs", ALTERED)


WORDS = [
    "explain", "report", "watch", "replay", "plan", "--json", "--step", "--out", "--total-steps", "--every", "-1", "0",
    "1e400", "nan", "", "[/]", "\x1b[31m", "--params", "7e9", "--tokens", "1e12", "--batch", "1e6", "--gpus", "8",
    "--strategy", "hsdp", "--state-bytes", "--help", "--version", "--", "\udcff", "/dev/null", "/", "log.jsonl",
    "--teraflops", "--utilisation", "--gpu-memory", "99999999999999999999", "--port",
]  # fmt: skip


def arguments(dice: random.Random) -> list[str]:
    """Of a command line: words that commands know, in any order."""
    chosen = dice.choices(WORDS, k=dice.randrange(7))
    if dice.random() < 0.4:
        values = ["1e6", "7e9", "1e12", "0", "-1", "nan", "inf", "1e308", "1e-308", "x"]
        chosen = ["plan", *(w for name in ("--params", "--tokens", "--batch") for w in (name, dice.choice(values)))]
        chosen += dice.choices(["--json", "--gpus", "8", "1", "fsdp", "--strategy", "10000000"], k=dice.randrange(4))
    # What waits, serves, changes the shell's settings or reads the whole disk is left out.
    return [word for word in chosen if word != "/" or chosen[0] not in {"report", "watch"}]


@pytest.mark.torture
def test_a_command_line_of_any_words_ends_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.jsonl").write_bytes(as_text(READERS["read_run, explain, watch"][0]()))
    for number in range(RUNS):
        command(arguments(random.Random(number)))
    record_property("inputs", RUNS)


# Constructors
anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5),
    st.complex_numbers(), st.sampled_from([10**400, -(10**400), 1e308, "adam", "nan", (), [], {}, object(), int]),
    st.sampled_from([torch.ones(2), torch.tensor(0.5)]),
    st.lists(st.floats(), max_size=4), st.tuples(st.floats(), st.just(0.0), st.floats()),
    st.just((-0.5, 0.0, 0.5)), st.just((-0.5, 0.0, 10**400)), st.just([0.0, "x"]),
)  # fmt: skip
SETTINGS = {
    autolr.PeakSearch: ("peak", "budget", "clip", "decay", "guard"),
    autolr.ExploreExploit: (
        "explore", "saturation", "epsilon", "factor", "floor", "spread", "rollback", "least", "eps", "confidence",
        "window", "superbatch", "overhead", "validation_eps",
    ),
    autolr.Monitor: ("eps", "spread", "confidence", "window", "superbatch", "overhead", "validation_eps"),
}  # fmt: skip
many = settings(max_examples=RUNS, suppress_health_check=list(HealthCheck), deadline=None)


def made(policy: Any, chosen: dict[str, Any]) -> None:
    """A policy, and what a run asks of it first."""
    from autolr.policies.base import Progress, Run

    built = policy(**chosen)
    run = Run(100, 10)
    state, now = built.begin(run), Progress(run, 3, 0.1)
    built.concern(run), built.phase(state, now), built.rate(state, now), built.check(state, now), repr(built)


@pytest.mark.torture
@pytest.mark.parametrize("policy", SETTINGS, ids=lambda policy: policy.__name__)
def test_a_policy_takes_its_settings_or_refuses_them_in_words(policy: Any, record_property: Any) -> None:
    tried = 0

    @many
    @given(chosen=st.dictionaries(st.sampled_from(SETTINGS[policy]), anything, max_size=3))
    def check(chosen: dict[str, Any]) -> None:
        nonlocal tried
        tried += 1
        quietly(lambda: made(policy, chosen))

    check()
    record_property("inputs", tried)


def wrapped(chosen: dict[str, Any]) -> None:
    model = torch.nn.Linear(2, 1)
    given_ = {
        "base": torch.optim.SGD(model.parameters(), lr=0.1), "model": model, "total_steps": 10,
        "loss_fn": lambda model, _: model(torch.ones(3, 2)).square().mean(), "batches": [torch.ones(3, 2)] * 4,
        **chosen,
    }  # fmt: skip
    repr(autolr.AutoLR(**given_))


@pytest.mark.torture
@pytest.mark.filterwarnings("ignore")
def test_autolr_takes_its_arguments_or_refuses_them_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    monkeypatch.chdir(tmp_path)  # a text is a trace's name
    tried = 0
    names = ("base", "model", "loss_fn", "batches", "total_steps", "policy", "seed", "trace", "on_decision", "search")

    @settings(many, max_examples=max(20, RUNS // 2))
    @given(chosen=st.dictionaries(st.sampled_from(names), anything, min_size=1, max_size=2))
    def check(chosen: dict[str, Any]) -> None:
        nonlocal tried
        tried += 1
        quietly(lambda: wrapped(chosen))

    check()
    record_property("inputs", tried)


@pytest.mark.torture
def test_inputs_that_a_coverage_guided_fuzzer_finds_are_read_or_refused(tmp_path: Path, record_property: Any) -> None:
    pytest.importorskip("atheris", reason="the extra torture has it, for Linux and Python up to 3.13")
    program = Path(__file__).with_name("guided_fuzz.py")
    done = subprocess.run(
        [sys.executable, str(program), f"-atheris_runs={GUIDED}", "-timeout=20", "-rss_limit_mb=3000", "-seed=1",
         "-max_len=16384", str(tmp_path)],
        check=False, capture_output=True, text=True, timeout=1500, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    record_property("inputs", GUIDED)


@pytest.mark.long
def test_all_hostile_values_are_really_tried() -> None:
    assert len(HOSTILE) > 25
    assert {ValueError, TypeError, OSError} == set(DOCUMENTED)
