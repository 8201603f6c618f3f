"""The benchmark: the arithmetic of regret, what searches ask for, and the command from end to end."""

import csv
import itertools
import json
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from autolr_lab.benchmark.benchmark import BENCHMARK
from autolr_lab.benchmark.contest import (
    ACCURACY,
    BUDGETS,
    ENTRIES,
    POINTS,
    SPREAD,
    TEST_LOSS,
    WARM_UP,
    Contest,
    Entry,
    score,
)
from autolr_lab.runner.experiment import Ask
from autolr_lab.benchmark.regret import by_seed, cost_to, expected_best, profile, ranks, regret
from autolr_lab.runner.search import FINALISTS, PEAKS, SCHEDULES, Grid, Optuna, Staircase
from autolr_lab.runner.store import key
from autolr_lab.cli.main import app
from autolr_lab.baselines import PEERS
from autolr_lab.workloads import WORKLOADS

numbers = st.floats(-1e3, 1e3)


def row(seed=0, *, accuracy=None, loss=None, seen=(), spent=300, steps=100, **settings):
    """A run that came to so much."""
    result = {"test_accuracy": accuracy, "test_loss": loss, "final_train_loss": 0.1 if loss is None else loss}
    result |= {"forward_equivalents": spent, "steps": steps, "training_seconds": 1.0}
    return {
        "settings": {"seed": seed, "lr": 0.1, "schedule": "cosine", "epochs": 1, "batch_size": 32, **settings},
        "result": result, "epochs": list(seen), "provenance": {},
    }  # fmt: skip


# Regret.


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=6))
def test_the_interval_is_that_of_a_paired_t_test(pairs):
    mine = {seed: row(seed, loss=a) for seed, (a, _) in enumerate(pairs)}
    best = {seed: row(seed, loss=b) for seed, (_, b) in enumerate(pairs)}
    found = regret(TEST_LOSS, mine, best)
    differences = [a - b for a, b in pairs]
    assert found.mean == pytest.approx(statistics.fmean(differences))
    if max(differences) - min(differences) > 1e-6:
        low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
        assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-6, abs=1e-6)
        assert found.decided == (not low <= 0 <= high)


def test_worse_is_above_zero_whichever_way_a_metric_points():
    best = {0: row(accuracy=0.9, loss=0.3)}
    worse = {0: row(accuracy=0.8, loss=0.4)}
    assert regret(ACCURACY, worse, best).mean == pytest.approx(10.0)
    assert regret(TEST_LOSS, worse, best).mean == pytest.approx(0.1)
    assert regret(ACCURACY, best, worse).mean == pytest.approx(-10.0)


def test_only_seeds_that_both_have_are_paired_and_one_pair_has_no_interval():
    best = {seed: row(seed, loss=1.0) for seed in (0, 1)}
    found = regret(TEST_LOSS, {1: row(1, loss=1.5), 7: row(7, loss=99.0)}, best)
    assert (found.mean, found.pairs) == (0.5, 1)
    assert math.isnan(found.half)
    assert not found.decided
    assert regret(TEST_LOSS, {7: row(7, loss=1.0)}, best) is None


@pytest.mark.parametrize("lost", [None, math.nan, math.inf])
def test_a_run_that_diverged_is_worse_than_any(lost):
    best = {seed: row(seed, loss=1.0) for seed in (0, 1)}
    assert regret(TEST_LOSS, {0: row(0, loss=1.0), 1: row(1, loss=lost)}, best).mean == math.inf


# What a sweep's runs buy.


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=7))
def test_the_expected_best_is_the_mean_over_every_choice(regrets):
    for k, expected in enumerate(expected_best(regrets), start=1):
        every = [min(chosen) for chosen in itertools.combinations(regrets, k)]
        assert expected == pytest.approx(statistics.fmean(every), abs=1e-9)


def test_a_diverged_point_of_a_grid_counts_as_its_worst():
    assert expected_best([0.0, math.inf, 4.0]) == expected_best([0.0, 4.0, 4.0])
    assert expected_best([math.inf, math.inf]) == [math.inf, math.inf]


# Who reaches a quality, and at what cost.


def test_the_cost_to_a_quality_is_that_of_the_first_evaluation_that_has_it():
    seen = [{"step": 25, "test_accuracy": 0.5}, {"step": 50, "test_accuracy": 0.9}, {"step": 75, "test_accuracy": 0.8}]
    run = row(seen=seen, spent=600, steps=100)  # 6 a step: half of it beside the training
    assert cost_to(ACCURACY, -50.0, run) == 150
    assert cost_to(ACCURACY, -80.0, run) == 300
    assert cost_to(ACCURACY, -91.0, run) == math.inf


costs = st.lists(st.tuples(*[st.one_of(st.floats(1, 100), st.just(math.inf))] * 3), min_size=1, max_size=6)


@given(costs.filter(lambda rows: all(math.isfinite(min(row)) for row in rows)))
def test_a_profile_is_the_share_of_problems_within_tau_of_the_cheapest(rows):
    names = ("a", "b", "c")
    curves = profile({name: [row[i] for row in rows] for i, name in enumerate(names)})
    for i, name in enumerate(names):
        for tau in (1.0, 1.5, 3.0, 200.0):
            share = sum(row[i] <= tau * min(row) * (1 + 1e-12) for row in rows if math.isfinite(row[i])) / len(rows)
            drawn = max((s for t, s in curves[name] if t <= tau * (1 + 1e-12)), default=0.0)
            assert drawn == pytest.approx(share)
        assert curves[name] == sorted(curves[name])


def test_equal_ones_share_their_ranks():
    assert ranks({"a": 1.0, "b": 0.0, "c": 1.0, "d": math.inf}) == {"b": 1.0, "a": 2.5, "c": 2.5, "d": 4.0}


# Searches: what they want, from what is there.

CONTEST = Contest("digits", "momentum", 40)
ASK = Ask(seeds=3)


class Ran:
    """Runs as they come: how good a run is follows from its schedule and its distance to the best peak."""

    def __init__(self, best=0.3, liked="linear"):
        self.best, self.liked, self.rows = best, liked, {}

    def accuracy(self, settings):
        away = abs(math.log10(settings.lr / (CONTEST.seed_rate * self.best)))
        steep = {self.liked: 0.0, "staircase": 0.01}.get(settings.schedule, 0.02)
        return 0.95 - 0.1 * away - steep + 0.001 * settings.seed

    def find(self, settings):
        return self.rows.get(key(settings))

    def run(self, wanted):
        for settings in wanted:
            told = {"schedule": settings.schedule, "lr": settings.lr, "epochs": settings.epochs}
            accuracy = self.accuracy(settings)
            seen = [{"step": 100, "test_accuracy": accuracy}]
            self.rows[key(settings)] = row(settings.seed, accuracy=accuracy, seen=seen, **told)

    def to_the_end(self, search):
        rounds = 0
        while missing := [s for s in search.wanted(self.find) if self.find(s) is None]:
            self.run(missing)
            rounds += 1
        return rounds


def test_the_grid_is_every_peak_with_every_schedule_and_its_three_best_get_every_seed():
    ran, grid = Ran(), Grid(CONTEST, ASK)
    first = grid.wanted(ran.find)
    assert len(first) == len(PEAKS) * len(SCHEDULES)
    assert {(s.schedule, s.lr) for s in first} == {(name, round(0.1 * p, 6)) for name in SCHEDULES for p in PEAKS}
    assert max(PEAKS) / min(PEAKS) == 1e4
    assert {s.schedule_options["warmup"] for s in first} == {WARM_UP}
    assert grid.winner(ran.find) == []
    assert ran.to_the_end(grid) == 2
    assert len(ran.rows) == len(first) + FINALISTS * 2
    best = grid.winner(ran.find)
    assert [r["settings"]["seed"] for r in best] == [0, 1, 2]
    assert {(r["settings"]["schedule"], r["settings"]["lr"]) for r in best} == {("linear", 0.03)}


def test_the_winner_is_the_best_of_the_finalists_by_its_mean_not_by_its_first_seed():
    ran, grid = Ran(), Grid(CONTEST, ASK)
    ran.run(grid.wanted(ran.find))
    lucky = grid.finalists(ran.find)[0]
    ran.accuracy = lambda s, usual=ran.accuracy: usual(s) - 0.5 * (s.schedule == lucky.schedule and s.seed > 0)
    ran.to_the_end(grid)
    assert {r["settings"]["schedule"] for r in grid.winner(ran.find)} != {lucky.schedule}


def test_a_diverged_run_is_in_no_final():
    ran, grid = Ran(), Grid(CONTEST, ASK)
    ran.accuracy = lambda s, usual=ran.accuracy: None if s.lr > 0.02 else usual(s)
    ran.to_the_end(grid)
    assert max(r["settings"]["lr"] for r in grid.winner(ran.find)) < 0.02


def test_the_staircase_is_tried_at_the_best_peak_and_beside_it_once_the_grid_is_whole():
    ran, search = Ran(), Staircase(CONTEST, ASK)
    assert search.wanted(ran.find) == []
    ran.to_the_end(Grid(CONTEST, ASK))
    assert [(s.schedule, s.lr) for s in search.tried(ran.find)] == [("staircase", lr) for lr in (0.01, 0.03, 0.1)]
    ran.to_the_end(search)
    assert {r["settings"]["lr"] for r in search.winner(ran.find)} == {0.03}


def test_optuna_spends_as_many_runs_as_the_grid_one_after_the_other_and_asks_for_the_same_again():
    ran, search = Ran(), Optuna(CONTEST, ASK)
    assert len(search.wanted(ran.find)) == 1
    ran.to_the_end(search)
    tried = search.tried(ran.find)
    assert len(tried) == len(PEAKS) * len(SCHEDULES)
    assert tried == Optuna(CONTEST, ASK).tried(ran.find)
    assert all(PEAKS[0] <= s.lr / CONTEST.seed_rate * (1 + 1e-6) and s.lr / 0.1 <= PEAKS[-1] for s in tried)
    assert len(search.winner(ran.find)) == 3
    # It learns from what it is told: its last third is nearer to the best peak than its first.
    away = [abs(math.log10(s.lr / 0.03)) for s in tried]
    assert statistics.fmean(away[18:]) < statistics.fmean(away[:9])


def test_optuna_goes_on_past_a_run_that_diverged():
    ran, search = Ran(), Optuna(CONTEST, ASK)
    ran.accuracy = lambda s, usual=ran.accuracy: None if s.lr > 0.1 else usual(s)
    ran.to_the_end(search)
    assert len(search.winner(ran.find)) == 3


# Contests and entries.


@pytest.mark.parametrize("contest", [c for some in BUDGETS.values() for c in some], ids=lambda c: c.name)
def test_every_contest_is_one_of_a_workload_and_evaluated_often_enough(contest):
    workload = WORKLOADS[contest.workload]
    settings = contest.settings(Ask(), "cosine", contest.seed_rate, 0)
    assert settings.epochs * settings.evaluations >= POINTS
    assert settings.equal_budget
    assert settings.measure == "train_loss"
    assert contest.seed_rate == workload.rate(contest.optimizer)


def test_the_small_budget_has_what_a_newcomer_would_ask_for():
    assert {c.workload for c in BUDGETS["small"]} >= {
        "digits", "fashion-mnist", "cifar10-small", "multi30k", "shakespeare", "squad-small",
    }  # fmt: skip
    assert {e.schedule for e in ENTRIES} >= {*PEERS, "autolr", "cosine", "knee", "fixed"}


def test_a_method_that_takes_a_rate_is_run_from_rates_four_decades_apart_and_no_other_is():
    ask = Ask(workloads=("digits",), optimizers=("momentum",), methods=("cosine", "Prodigy"))
    assert max(SPREAD) / min(SPREAD) == 1e4
    wanted = {(s.schedule, s.lr, s.seed) for s in BENCHMARK.cells(ask)}
    assert {(name, lr) for name, lr, _ in wanted if name == "prodigy"} == {("prodigy", 1.0)}
    assert {0.001, 0.1, 10.0} <= {lr for name, lr, _ in wanted if name == "cosine"}
    # The method untuned is the same run as the grid's point at that rate.
    cells = [key(s) for s in BENCHMARK.cells(ask)]
    untuned = next(e for e in ENTRIES if e.label == "cosine").settings(CONTEST, ask, 0)
    assert cells.count(key(untuned)) > 1


def test_a_peer_is_used_with_its_own_documented_rate_or_the_workloads():
    def rate(label, contest):
        return next(e for e in ENTRIES if e.label == label).settings(contest, Ask(), 0).lr

    adam = Contest("digits", "adam", 40)
    assert (rate("Schedule-free", CONTEST), rate("Schedule-free", adam)) == (1.0, 0.0025)
    assert (rate("GreedyLR", CONTEST), rate("GreedyLR", adam)) == (0.1, 0.001)
    assert Entry("x", "momo").settings(adam, Ask(), 0, times=0.01).lr == pytest.approx(1e-4)


# The table.


def test_regret_is_to_the_sweeps_best_with_the_same_seeds_and_searches_pay_for_all_their_runs():
    ask = Ask(seeds=2, workloads=("digits",), optimizers=("momentum",), methods=("sweep", "tuned staircase", "fixed"))
    ran = Ran()
    while missing := [s for s in BENCHMARK.known(ask, ran.find) if ran.find(s) is None]:
        ran.run(missing)
    standings = {s.label: s for s in BENCHMARK.standings(CONTEST, ask, ran.find)}
    assert standings["sweep"].regret.mean == 0
    assert standings["sweep"].cost == 27 + 3  # three finalists with a second seed
    assert standings["tuned staircase"].cost == 3 + 1
    untuned = Entry("fixed", "fixed").settings(CONTEST, ask, 0)
    assert standings["fixed"].regret.mean == pytest.approx(95 - 100 * ran.accuracy(untuned))
    assert standings["fixed"].regret.half == pytest.approx(0, abs=1e-9)
    assert standings["fixed"].cost == 1
    assert len(standings["fixed"].from_seeds) == 3
    assert standings["sweep"].from_seeds == ()


def test_nothing_is_held_against_a_sweep_that_is_not_whole():
    ask = Ask(seeds=1, workloads=("digits",))
    ran = Ran()
    ran.run(BENCHMARK.cells(ask)[:20])
    assert "nothing to hold" in BENCHMARK.show(ask, ran.find).markdown


def test_the_command_runs_what_is_missing_and_writes_tables_pictures_and_a_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["bench", "--workloads", "digits", "--optimizers", "momentum", "--scale", "0.025", "--seeds", "2"]
    args += ["--methods", "sweep,tuned staircase,AutoLR, the paper's looks,Knee,SLS", "--records", "r", "--record"]
    first = CliRunner().invoke(app, args)
    assert first.exit_code == 0, first.output
    table = (tmp_path / "reproduced" / "bench" / "table.md").read_text()
    for label in ("sweep", "tuned staircase", "AutoLR, the paper's looks", "Knee", "SLS"):
        assert f"| {label} | 2 |" in table
    with (tmp_path / "reproduced" / "bench" / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["method"] for line in lines} >= {"sweep", "Knee", "SLS"}
    (record,) = (tmp_path / "r").glob("*/record.json")
    kept = json.loads(record.read_text())
    budget = 3 * kept["rows"][0]["result"]["steps"]
    assert all(r["result"]["forward_equivalents"] <= budget + 100 for r in kept["rows"])  # a look is taken whole
    assert "steps" not in kept["rows"][0]
    again = CliRunner().invoke(app, [*args[:-1], "--runs", "elsewhere", "--plan"])
    assert "0 of them to be run" in again.output
    for picture in ("regret", "cost", "seed_rates"):
        assert (tmp_path / "reproduced" / "bench" / f"bench_{picture}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--workloads", "mnist"], "workload in the small budget"),
        (["--budget", "large"], "small, full"),
        (["--methods", "prodigi"], "Did you mean prodigy"),
        (["--optimizers", "nadam"], "they have: adam, adamw, momentum"),
        (["--scale", "2"], "above 0 and at most 1"),
    ],
)
def test_a_mistake_is_told_with_what_is_allowed(args, words):
    result = CliRunner().invoke(app, ["bench", *args])
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())


def test_a_score_is_less_for_better_and_infinite_for_a_run_that_diverged():
    assert score(CONTEST, row(accuracy=0.9)) < score(CONTEST, row(accuracy=0.8)) < score(CONTEST, row())
    assert score(CONTEST, row()) == math.inf
    assert by_seed([row(3, loss=1.0)])[3]["result"]["test_loss"] == 1.0
