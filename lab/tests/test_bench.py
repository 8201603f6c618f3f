"""The benchmark: the arithmetic of regret, what searches ask for, and the command from end to end."""

import csv
import dataclasses
import itertools
import json
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from autolr_lab.baselines import BASELINES
from autolr_lab.benchmark.benchmark import BENCHMARK
from autolr_lab.benchmark.methods import METHODS, RATES, run_of
from autolr_lab.benchmark.pages import summary_table
from autolr_lab.benchmark.regret import Result, cost_to, expected_best, mean_ranks, regret
from autolr_lab.benchmark.search import FINALISTS, SCHEDULES, Grid, Optuna, Staircase
from autolr_lab.benchmark.tasks import ACCURACY, BUDGETS, PEAKS, POINTS, TEST_LOSS, Task, score
from autolr_lab.cli.main import app
from autolr_lab.runner.experiment import Method, RunSpec
from autolr_lab.runner.results import Results
from autolr_lab.runner.store import settings_key
from autolr_lab.studies.records import render_record
from autolr_lab.workloads import WORKLOADS

FULL_LENGTH = "2026-11-26_bench_333c671f85fb"


def row(seed=0, *, accuracy=None, loss=None, seen=(), spent=300, steps=100, **settings):
    """A run that came to so much."""
    result = {"test_accuracy": accuracy, "test_loss": loss, "final_train_loss": 0.1 if loss is None else loss}
    result |= {"forward_equivalents": spent, "steps": steps, "training_seconds": 1.0}
    return {
        "settings": {"seed": seed, "lr": 0.1, "schedule": "cosine", "epochs": 1, "batch_size": 32, **settings},
        "result": result, "epochs": list(seen), "provenance": {},
    }  # fmt: skip


# Regret.


def test_worse_is_above_zero_whichever_way_a_metric_points():
    best = {0: row(accuracy=0.9, loss=0.3)}
    worse = {0: row(accuracy=0.8, loss=0.4)}
    assert regret(ACCURACY, worse, best).mean == pytest.approx(10.0)
    assert regret(TEST_LOSS, worse, best).mean == pytest.approx(0.1)
    assert regret(ACCURACY, best, worse).mean == pytest.approx(-10.0)


def test_only_seeds_that_both_have_are_paired_and_one_pair_has_no_interval():
    best = {seed: row(seed, loss=1.0) for seed in (0, 1)}
    found = regret(TEST_LOSS, {1: row(1, loss=1.5), 7: row(7, loss=99.0)}, best)
    assert found.values == (0.5,)
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


def ranked(task, regrets):
    """What methods came to on a task: by label, the regret of each seed."""
    best = {seed: row(seed, accuracy=0.9) for seed in range(3)}
    results = []
    for label, each in regrets.items():
        rows = {seed: row(seed, accuracy=0.9 - lost / 100) for seed, lost in enumerate(each)}
        found = regret(task.metric, rows, best)
        results.append(Result(label, list(rows.values()), found, None, 1.0, 1.0, 1.0, ()))
    return results


ONE, TWO = Task("digits", "momentum", 40), Task("digits", "adam", 40)


def test_ranks_are_of_figures_as_printed_and_equal_ones_share_them():
    # b and c differ in the 15th digit, which is below what a table has.
    some = ranked(ONE, {"a": (1.0, 1.0), "b": (0.1, 0.2), "c": (0.2, 0.1 + 1e-14), "d": (0.0, 0.0)})
    assert mean_ranks({ONE: some}) == {"d": 1.0, "b": 2.5, "c": 2.5, "a": 4.0}


def test_a_method_with_one_seed_has_no_rank_and_moves_none():
    some = {"a": (1.0, 1.0), "b": (0.5, 0.5)}
    assert mean_ranks({ONE: ranked(ONE, {**some, "lucky": (-9.0,)})}) == {"b": 1.0, "a": 2.0}


def test_all_that_are_ranked_are_ranked_on_the_same_tasks():
    both = {"a": (1.0, 1.0), "b": (0.5, 0.5)}
    found = mean_ranks(
        {ONE: ranked(ONE, {**both, "c": (0.0, 0.0)}), TWO: ranked(TWO, {"a": (0.0, 0.0), "b": (0.5, 0.5)})}
    )
    assert found == {"a": 1.5, "b": 1.5}


def test_a_task_that_few_methods_ran_on_is_not_ranked_on():
    most = {"a": (1.0, 1.0), "b": (0.5, 0.5), "c": (0.0, 0.0)}
    found = mean_ranks({ONE: ranked(ONE, most), TWO: ranked(TWO, {"a": (0.0, 0.0)})})
    assert found == {"c": 1.0, "b": 2.0, "a": 3.0}


def test_a_summary_says_where_a_mean_is_over_one_seed():
    some = ranked(ONE, {"a": (1.0, 1.0), "lucky": (-9.0,)})
    lines = {line.split(" | ")[0]: line for line in summary_table({ONE: some}).splitlines()}
    assert lines["| lucky"].endswith("-9.00 (n = 1) |")
    assert lines["| a"].endswith("+1.00 |")


# Searches: what they want, from what is there.

TASK, SPEC = ONE, RunSpec(seeds=3)


class Ran:
    """Runs as they come: how good a run is follows from its schedule and its distance to the best peak."""

    def __init__(self, best=0.3, liked="linear"):
        self.best, self.liked, self.rows = best, liked, {}

    def accuracy(self, settings):
        away = abs(math.log10(settings.lr / (TASK.seed_rate * self.best)))
        steep = {self.liked: 0.0, "staircase": 0.01}.get(settings.schedule, 0.02)
        return 0.95 - 0.1 * away - steep + 0.001 * settings.seed

    def find(self, settings):
        return self.rows.get(settings_key(settings))

    def run(self, wanted):
        for settings in wanted:
            told = {"schedule": settings.schedule, "lr": settings.lr, "epochs": settings.epochs}
            accuracy = self.accuracy(settings)
            seen = [{"step": 100, "test_accuracy": accuracy}]
            self.rows[settings_key(settings)] = row(settings.seed, accuracy=accuracy, seen=seen, **told)

    def to_the_end(self, search):
        rounds = 0
        while missing := [s for s in search.wanted(self.find) if self.find(s) is None]:
            self.run(missing)
            rounds += 1
        return rounds


def test_the_grid_is_every_peak_with_every_schedule_and_its_three_best_get_every_seed():
    ran, grid = Ran(), Grid(TASK, SPEC)
    first = grid.wanted(ran.find)
    assert len(first) == len(PEAKS) * len(SCHEDULES)
    assert {(s.schedule, s.lr) for s in first} == {(name, round(0.1 * p, 6)) for name in SCHEDULES for p in PEAKS}
    assert max(PEAKS) / min(PEAKS) == 1e4
    assert {s.schedule_options["warmup"] for s in first} == {TASK.warm_up}
    assert grid.winner(ran.find) == []
    assert ran.to_the_end(grid) == 2
    assert len(ran.rows) == len(first) + FINALISTS * 2
    best = grid.winner(ran.find)
    assert [r["settings"]["seed"] for r in best] == [0, 1, 2]
    assert {(r["settings"]["schedule"], r["settings"]["lr"]) for r in best} == {("linear", 0.03)}


def test_the_winner_is_the_best_of_the_finalists_by_its_mean_not_by_its_first_seed():
    ran, grid = Ran(), Grid(TASK, SPEC)
    ran.run(grid.wanted(ran.find))
    lucky = grid.finalists(ran.find)[0]
    ran.accuracy = lambda s, usual=ran.accuracy: usual(s) - 0.5 * (s.schedule == lucky.schedule and s.seed > 0)
    ran.to_the_end(grid)
    assert {r["settings"]["schedule"] for r in grid.winner(ran.find)} != {lucky.schedule}


def test_a_diverged_run_is_in_no_final():
    ran, grid = Ran(), Grid(TASK, SPEC)
    ran.accuracy = lambda s, usual=ran.accuracy: None if s.lr > 0.02 else usual(s)
    ran.to_the_end(grid)
    assert max(r["settings"]["lr"] for r in grid.winner(ran.find)) < 0.02


def test_the_staircase_is_tried_at_the_best_peak_and_beside_it_once_the_grid_is_whole():
    ran, search = Ran(), Staircase(TASK, SPEC)
    assert search.wanted(ran.find) == []
    ran.to_the_end(Grid(TASK, SPEC))
    assert [(s.schedule, s.lr) for s in search.tried(ran.find)] == [("staircase", lr) for lr in (0.01, 0.03, 0.1)]
    ran.to_the_end(search)
    assert {r["settings"]["lr"] for r in search.winner(ran.find)} == {0.03}


def test_optuna_spends_as_many_runs_as_the_grid_one_after_the_other_and_asks_for_the_same_again():
    ran, search = Ran(), Optuna(TASK, SPEC)
    assert len(search.wanted(ran.find)) == 1
    ran.to_the_end(search)
    tried = search.tried(ran.find)
    assert len(tried) == len(PEAKS) * len(SCHEDULES)
    assert tried == Optuna(TASK, SPEC).tried(ran.find)
    assert all(PEAKS[0] <= s.lr / TASK.seed_rate * (1 + 1e-6) and s.lr / 0.1 <= PEAKS[-1] for s in tried)
    assert len(search.winner(ran.find)) == 3
    # It learns from what it is told: its last third is nearer to the best peak than its first.
    away = [abs(math.log10(s.lr / 0.03)) for s in tried]
    assert statistics.fmean(away[18:]) < statistics.fmean(away[:9])


def test_optuna_goes_on_past_a_run_that_diverged():
    ran, search = Ran(), Optuna(TASK, SPEC)
    ran.accuracy = lambda s, usual=ran.accuracy: None if s.lr > 0.1 else usual(s)
    ran.to_the_end(search)
    assert len(search.winner(ran.find)) == 3


# Tasks and methods.


@pytest.mark.parametrize("task", [task for some in BUDGETS.values() for task in some], ids=lambda task: task.name)
def test_every_task_is_one_of_a_workload_and_evaluated_often_enough(task):
    settings = task.settings(RunSpec(), Method("cosine", "cosine"), 0, task.seed_rate)
    assert settings.epochs * settings.evaluations >= POINTS
    assert settings.equal_budget
    assert settings.measure == "train_loss"
    assert task.seed_rate == WORKLOADS[task.workload].rate(task.optimizer)
    assert task.metric.margin > 0


def test_the_small_budget_has_what_a_newcomer_would_ask_for():
    assert {task.workload for task in BUDGETS["small"]} >= {
        "digits", "fashion-mnist", "cifar10-small", "multi30k", "shakespeare", "squad-small",
    }  # fmt: skip
    assert {m.schedule for m in METHODS} >= {*BASELINES, "find-peak-paid", "explore-exploit", "cosine", "knee", "fixed"}
    assert len({method.label for method in METHODS}) == len(METHODS)


def test_translation_is_swept_with_the_warm_up_of_its_best_recorded_run():
    (task,) = [task for task in BUDGETS["small"] if task.workload == "multi30k"]
    wanted = Grid(task, SPEC).tried(lambda _: None)
    assert {s.schedule_options["warmup"] for s in wanted} == {0.1}
    assert ("knee", 0.002) in {(s.schedule, s.lr) for s in wanted}
    assert (min(s.lr for s in wanted), max(s.lr for s in wanted)) == (0.0006, 0.006)  # above the paper's start


def test_a_method_that_takes_a_rate_is_run_from_rates_four_decades_apart_and_no_other_is():
    spec = RunSpec(workloads=("digits",), optimizers=("momentum",), methods=("cosine", "Prodigy", "PeakSearch"))
    assert max(RATES) / min(RATES) == 1e4
    cells = BENCHMARK.runs(spec)
    wanted = {(s.schedule, s.lr, s.seed) for s in cells}
    assert {(name, lr) for name, lr, _ in wanted if name == "prodigy"} == {("prodigy", 1.0)}
    assert {lr for name, lr, _ in wanted if name == "find-peak-paid"} == {0.1}
    assert {0.001, 0.1, 10.0} <= {lr for name, lr, _ in wanted if name == "cosine"}
    # The method untuned is the same run as the grid's point at that rate.
    untuned = run_of(next(m for m in METHODS if m.label == "cosine"), TASK, spec, 0)
    assert [settings_key(s) for s in cells].count(settings_key(untuned)) > 1


def test_a_baseline_is_used_with_its_own_documented_rate_or_the_workloads():
    def rate(label, task, times=1.0):
        return run_of(next(m for m in METHODS if m.label == label), task, RunSpec(), 0, times).lr

    assert (rate("Schedule-free", ONE), rate("Schedule-free", TWO)) == (1.0, 0.0025)
    assert (rate("GreedyLR", ONE), rate("GreedyLR", TWO)) == (0.1, 0.001)
    assert rate("MoMo", TWO, times=0.01) == pytest.approx(1e-4)


def test_explore_exploit_has_table_7_and_the_adaptive_one_its_defaults():
    imagenet = Task("tiny-imagenet-10", "momentum", 10)
    policies = {m.label: run_of(m, imagenet, RunSpec(), 0).policy for m in METHODS}
    assert policies["ExploreExploit"] == {"explore": 25 / 90, "saturation": 500}
    assert policies["ExploreExploit, adaptive"] == policies["PeakSearch"] == policies["Knee"] == {}


# The table.


def test_regret_is_to_the_sweeps_best_with_the_same_seeds_and_searches_pay_for_all_their_runs():
    methods = ("sweep", "tuned staircase", "fixed")
    spec = RunSpec(seeds=2, workloads=("digits",), optimizers=("momentum",), methods=methods)
    ran = Ran()
    while missing := [s for s in BENCHMARK.runs_so_far(spec, ran.find) if ran.find(s) is None]:
        ran.run(missing)
    results = {one.label: one for one in BENCHMARK.results(TASK, spec, ran.find)}
    assert results["sweep"].regret.mean == 0
    assert results["sweep"].cost == 27 + 3  # three finalists with a second seed
    assert results["tuned staircase"].cost == 3 + 1
    untuned = run_of(Method("fixed", "fixed"), TASK, spec, 0)
    assert results["fixed"].regret.mean == pytest.approx(95 - 100 * ran.accuracy(untuned))
    assert results["fixed"].regret.half == pytest.approx(0, abs=1e-9)
    assert results["fixed"].cost == 1
    assert len(results["fixed"].from_rates) == 3
    assert results["sweep"].from_rates == ()
    rendered = BENCHMARK.render(spec, ran.find)
    assert rendered.parts.keys() == {"summary", "digits, momentum", "notes", "methods"}
    (line,) = [x for x in rendered.parts["digits, momentum"].splitlines() if x.startswith("| fixed |")]
    assert line.split(" | ")[1:5] == ["2", "87.82 ± 0.07", "+7.23 ± 0.00", "worse"]


def test_nothing_is_held_against_a_sweep_that_is_not_complete():
    spec = RunSpec(seeds=1, workloads=("digits",))
    ran = Ran()
    ran.run(BENCHMARK.runs(spec)[:20])
    assert "nothing to hold" in BENCHMARK.render(spec, ran.find).markdown


def test_a_record_of_a_benchmark_is_rendered_from_its_runs_with_every_picture():
    rendered = render_record(Results(), FULL_LENGTH)
    (line,) = [x for x in rendered.parts["summary"].splitlines() if x.startswith("| Schedule-free |")]
    assert line.split(" | ")[3:6] == ["+0.56", "+0.65", "-0.70"]
    assert {name: draw()[:4] for name, draw in rendered.pictures.items()} == dict.fromkeys(
        ("bench_regret.png", "bench_cost.png"), b"\x89PNG"
    )
    assert len(rendered.csv) == 6 * 6 * 3  # tasks, methods, seeds


def test_the_command_runs_what_is_missing_and_writes_tables_pictures_and_a_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    two_peaks = tuple(dataclasses.replace(task, peaks=(0.1, 1.0)) for task in BUDGETS["small"])
    monkeypatch.setitem(BUDGETS, "small", two_peaks)
    monkeypatch.setattr("autolr_lab.benchmark.search.SCHEDULES", ("linear",))
    args = ["bench", "--workloads", "digits", "--optimizers", "momentum", "--scale", "0.025", "--seeds", "2"]
    args += ["--methods", "sweep,ExploreExploit, adaptive,Knee", "--results", "r", "--device", "cpu", "--record"]
    first = CliRunner().invoke(app, args)
    assert first.exit_code == 0, first.output
    table = (tmp_path / "reproduced" / "bench" / "table.md").read_text()
    for label in ("sweep", "ExploreExploit, adaptive", "Knee"):
        assert f"| {label} | 2 |" in table
    with (tmp_path / "reproduced" / "bench" / "table.csv").open() as file:
        assert {line["method"] for line in csv.DictReader(file)} == {"sweep", "ExploreExploit, adaptive", "Knee"}
    (record,) = json.loads((tmp_path / "r" / "manifest.json").read_text()).values()
    assert record["spec"]["workloads"] == ["digits"]
    kept = list(Results(tmp_path / "r").runs.values())
    budget = 3 * max(one["result"]["steps"] for one in kept)
    assert all(one["result"]["forward_equivalents"] <= budget + 100 for one in kept)  # a probe is taken whole
    assert all("steps" not in one for one in kept)
    again = CliRunner().invoke(app, [*args[:-1], "--runs", "elsewhere", "--plan"])
    assert "0 of them to be run" in again.output
    assert (tmp_path / "reproduced" / "bench" / "bench_regret.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--workloads", "mnist"], "workload in the small budget"),
        (["--budget", "large"], "small"),
        (["--methods", "prodigi"], "prodigy"),
        (["--optimizers", "nadam"], "adam, adamw, momentum"),
        (["--scale", "2"], "above 0 and at most 1"),
    ],
)
def test_a_mistake_is_told_with_what_is_allowed(args, words):
    result = CliRunner().invoke(app, ["bench", *args])
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())


def test_a_score_is_less_for_better_and_infinite_for_a_run_that_diverged():
    assert score(TASK, row(accuracy=0.9)) < score(TASK, row(accuracy=0.8)) < score(TASK, row())
    assert score(TASK, row()) == math.inf


def test_specs_of_records_come_back_without_the_places():
    spec = RunSpec(scale=0.4, seeds=3, methods=("sweep",), workloads=("digits",), device="cuda")
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))) == dataclasses.replace(spec, device="cpu")
