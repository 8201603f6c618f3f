"""Every table and figure by one command: what is run, what is reused, and what is shown of it."""

import csv
import dataclasses
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autolr_lab.cli.main import app
from autolr_lab.paper.costs import Costs
from autolr_lab.paper.differences import Differences, papers_gain
from autolr_lab.paper.figures import Curves, Superbatch
from autolr_lab.paper.fits import Fits, _with_own_minimum
from autolr_lab.paper.hypothesis import Hypothesis
from autolr_lab.paper.paper import DIGITS, EXPERIMENTS, TABLE_1, TABLE_2, TABLE_4, TABLE_9, VALIDATION_EPS
from autolr_lab.paper.tables import ACCURACY, TRAIN_LOSS
from autolr_lab.runner import jobs as runner_jobs
from autolr_lab.runner.experiment import Method, RunSpec
from autolr_lab.runner.jobs import carry_out, run_job
from autolr_lab.runner.markdown import mean_and_sd
from autolr_lab.runner.reproduce import add_record, plan, reproduce, write
from autolr_lab.runner.results import Results
from autolr_lab.runner.store import Store, decisions_of, find_in_record, settings_key
from autolr_lab.training.access import RunError, TakenError, locked
from autolr_lab.training.provenance import portable
from autolr_lab.training.runs import Settings, read_run
from autolr_lab.workloads import WORKLOADS
from helpers import comparable

# Two epochs of the digits, with two optimizers and three methods.
TINY = RunSpec(scale=2 / 40, seeds=2, optimizers=("sgd", "adam"), methods=("baseline", "ExploreExploit", "Knee"))
SETTINGS = Settings("digits", "sgd", "cosine", 0.1, 2, 32, 0)


ONE_FOUND = RunSpec(seeds=1, methods=("find_peak",), optimizers=("sgd",))


def run_here(experiments, spec, store):
    """What the pool of processes does, in this one."""
    while missing := plan(experiments, spec, store).missing:
        for settings in missing:
            run_job(settings, store.folder(settings), threads=None)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The runs of the digits' table."""
    store = Store(tmp_path_factory.mktemp("runs"))
    run_here([DIGITS], TINY, store)
    return store


def rows_of(store, optimizer, label):
    (method,) = [m for m in DIGITS.methods if m.label == label]
    return [store.find(DIGITS.settings(TINY, optimizer, method, seed)) for seed in range(2)]


# Runs.


def test_what_is_there_is_not_run_again(kept):
    assert plan([DIGITS], TINY, kept).missing == []
    more = dataclasses.replace(TINY, seeds=3)
    assert plan([DIGITS], more, kept).missing == [s for s in DIGITS.runs(more) if s.seed == 2]


def test_what_was_cut_off_is_gone_on_with_and_what_is_complete_left_alone(tmp_path, kept):
    settings = DIGITS.runs(TINY)[0]
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_bytes((kept.folder(settings) / "run.json").read_bytes())
    run_job(settings, folder, threads=None)
    assert comparable(folder) == comparable(kept.folder(settings))
    stamp = (folder / "result.json").stat().st_mtime_ns
    run_job(settings, folder, threads=None)
    assert (folder / "result.json").stat().st_mtime_ns == stamp


def test_a_run_that_fails_is_named_and_the_others_are_carried_out(tmp_path):
    good, bad = SETTINGS, dataclasses.replace(SETTINGS, lr=-1.0)
    done = []
    with pytest.raises(RunError, match=r"digits sgd cosine, seed 0, in .*bad: .*learning rate"):
        done.extend(carry_out([(bad, tmp_path / "bad"), (good, tmp_path / "good")]))
    assert read_run(tmp_path / "good").result is not None
    assert done == [tmp_path / "good"]


def test_a_run_that_another_process_has_is_left_for_the_end(tmp_path):
    jobs = [(dataclasses.replace(SETTINGS, seed=seed), tmp_path / f"run{seed}") for seed in (0, 1)]
    with locked(tmp_path / "run0"):
        carried = carry_out(jobs)
        assert next(carried) == tmp_path / "run1"
        assert not (tmp_path / "run0" / "run.json").exists()
    assert list(carried) == [tmp_path / "run0"]
    assert read_run(tmp_path / "run0").result is not None


def test_what_a_dying_worker_took_along_goes_on_one_by_one_and_behind_nobody(tmp_path, monkeypatch):
    free, taken, culprit = (
        (dataclasses.replace(SETTINGS, seed=seed), tmp_path / name)
        for seed, name in enumerate(("free", "taken", "culprit"))
    )
    said = iter([
        {"free": BrokenProcessPool(), "taken": TakenError("another has it"), "culprit": BrokenProcessPool()},
        {"free": None}, {"culprit": BrokenProcessPool("out of memory")}, {"taken": TakenError("still")},
        {"taken": None},
    ])  # fmt: skip
    pools = []

    def pool(jobs, workers, every):
        answers = next(said)
        pools.append(([folder.name for _, folder in jobs], workers))
        assert answers.keys() == set(pools[-1][0])
        yield from ((job, answers[job[1].name]) for job in jobs)

    monkeypatch.setattr(runner_jobs, "_in_a_pool", pool)
    done = []
    with pytest.raises(RunError, match=r"seed 2, in .*culprit: out of memory"):
        done.extend(carry_out([free, taken, culprit], workers=2))
    assert [folder.name for folder in done] == ["free", "taken"]
    assert pools == [
        (["free", "taken", "culprit"], 2), (["free"], 1), (["culprit"], 1), (["taken"], 1), (["taken"], 2),
    ]  # fmt: skip


def test_the_start_of_several_ranks_waits_for_processes_whose_own_start_died(tmp_path, monkeypatch):
    ranked = dataclasses.replace(SETTINGS, ranks=2)

    def refused(settings, folder, every):
        raise RunError("2 processes failed")

    monkeypatch.setattr(runner_jobs, "train_by_ranks", refused)
    with pytest.raises(RunError, match="2 processes failed"):
        run_job(ranked, tmp_path / "run", threads=None)
    script = "import sys, time; from pathlib import Path; from autolr_lab.training.access import locked\n"
    script += "with locked(Path(sys.argv[1])): print('has it', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as orphan:
        try:
            assert orphan.stdout.readline() == "has it\n"
            with pytest.raises(TakenError):
                run_job(ranked, tmp_path / "run", threads=None)
        finally:
            orphan.kill()


def test_nothing_is_recorded_where_no_run_is_there(tmp_path):
    results = Results(tmp_path / "results")
    with pytest.raises(RunError, match="no run of digits"):
        add_record(results, DIGITS, TINY, Store(tmp_path / "runs"))
    assert results.records == {}


def test_how_many_processes_load_makes_no_other_run_and_is_kept_with_a_record():
    keys = {workers: settings_key(dataclasses.replace(SETTINGS, workers=workers)) for workers in (0, 1, 8)}
    assert keys[0] != keys[1] == keys[8]  # with some, an image's view is drawn by itself
    spec = dataclasses.replace(TINY, ranks=8, workers=8)
    assert RunSpec.from_json(spec.to_json()) == dataclasses.replace(spec, data_dir=None)


def test_two_processes_share_a_list_of_runs_and_train_each_once(tmp_path):
    # As eight GPUs or the nodes of a cluster do: the same command, started more than once in one folder.
    seeds = 3
    command = [
        sys.executable, "-m", "autolr_lab.cli.main", "reproduce", "digits", "--scale", "0.05", "--seeds", str(seeds),
        "--methods", "baseline", "--optimizers", "sgd", "--device", "cpu", "--runs", str(tmp_path / "runs"),
        "--results", str(tmp_path / "results"),
    ]  # fmt: skip
    started = [
        subprocess.Popen([*command, "--out", str(tmp_path / name)], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    tables = [(tmp_path / name / "digits" / "table.csv").read_text() for name in ("a", "b")]
    assert tables[0] == tables[1]
    folders = sorted((tmp_path / "runs").iterdir())
    assert len(folders) == seeds
    for folder in folders:
        steps = [json.loads(line)["step"] for line in (folder / "steps.jsonl").read_text().splitlines()]
        assert steps == sorted(set(steps)), "no step was trained twice"
        assert read_run(folder).resumed == []


@pytest.mark.distributed
def test_a_worker_that_is_killed_costs_nothing_but_time(tmp_path):
    longer = dataclasses.replace(SETTINGS, epochs=12)
    jobs = [(dataclasses.replace(longer, seed=seed), tmp_path / f"run{seed}") for seed in (0, 1, 2)]
    killed = []
    killer = threading.Thread(target=_kill_a_worker_under_way, args=(tmp_path, killed), daemon=True)
    killer.start()
    assert sorted(carry_out(jobs, workers=2, every=0)) == [folder for _, folder in jobs]
    killer.join()
    assert len(killed) == 1
    for settings, folder in jobs:
        assert comparable(folder) == comparable(run_job(settings, tmp_path / f"plain{settings.seed}", threads=1))


def _kill_a_worker_under_way(root, killed):
    """SIGKILL to one of two workers, once a run has a checkpoint behind its first lines."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        logs = [path for path in root.glob("run*/steps.jsonl") if path.read_text().count("\n") > 5]
        if any((path.parent / "checkpoint.pt").exists() for path in logs):
            found = subprocess.run(["pgrep", "-f", "spawn_main"], capture_output=True, text=True, check=False)
            ours = [pid for pid in found.stdout.split() if _parent(pid) == os.getpid()]
            if ours:
                os.kill(int(ours[0]), signal.SIGKILL)
                killed.append(ours[0])
                return
        time.sleep(0.05)


def _parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_a_run_that_is_gone_on_with_stays_on_the_device_that_it_has(tmp_path):
    (tmp_path / "run").mkdir()
    about = {"settings": dataclasses.asdict(SETTINGS), "provenance": {}, "resumed": []}
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    run_job(dataclasses.replace(SETTINGS, device="cuda"), tmp_path / "run", threads=None)
    assert read_run(tmp_path / "run").settings == SETTINGS


# What is shown.


def test_a_table_has_mean_spread_and_n_of_the_runs_themselves(kept):
    rendered = DIGITS.render(TINY, kept.find)
    lines = [line for line in rendered.markdown.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + 2 * 3
    cells = [cell.strip() for cell in next(x for x in lines if "| adam | Knee |" in x).strip("|").split("|")]
    accuracy = [100 * row["result"]["test_accuracy"] for row in rows_of(kept, "adam", "Knee")]
    assert cells[2] == "2"
    assert cells[4] == f"{statistics.fmean(accuracy):.2f} ± {statistics.stdev(accuracy):.2f}"
    (line,) = [
        x for x in rendered.csv if (x["optimizer"], x["method"], x["metric"]) == ("adam", "Knee", ACCURACY.title)
    ]
    assert line["mean"] == pytest.approx(statistics.fmean(accuracy))
    assert line["sd"] == pytest.approx(statistics.stdev(accuracy))


def test_the_files_are_markdown_and_csv_and_a_record_is_all_that_it_takes(kept, tmp_path):
    rendered = DIGITS.render(TINY, kept.find)
    write(tmp_path / "out", "A title", rendered)
    assert (tmp_path / "out" / "table.md").read_text() == f"# A title\n\n{rendered.markdown}"
    with (tmp_path / "out" / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rendered.csv)
    results = Results(tmp_path / "results")
    record = add_record(results, DIGITS, TINY, kept)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_digits_[0-9a-f]{12}\+?", record.name)
    assert RunSpec.from_json(record.spec) == TINY
    assert len(record.runs) == len({settings_key(s) for s in DIGITS.runs(TINY)})
    assert DIGITS.render(TINY, find_in_record(results, record.name)).markdown == rendered.markdown
    assert DIGITS.render(TINY, Store(tmp_path / "none", results).find).markdown == rendered.markdown
    assert add_record(results, DIGITS, TINY, kept).name == f"{record.name}_1"


def test_a_record_about_the_runs_of_others_names_those_runs(kept, tmp_path):
    results, costs = Results(tmp_path), Costs("costs", "Costs", (DIGITS,))
    record = add_record(results, costs, TINY, kept)
    assert len(record.runs) == 2 * 2  # optimizers, seeds: those that AutoLR tuned
    again = costs.render(TINY, find_in_record(results, record.name))
    assert again.markdown == costs.render(TINY, kept.find).markdown


def test_a_records_commands_do_not_say_where_things_lay():
    told = "autolr-lab reproduce table9 --runs /there --scale 0.2 --out=/else --data-dir '/a b' --record"
    assert portable({"command": told, "commit": "x"}) == {
        "command": "autolr-lab reproduce table9 --scale 0.2 --record", "commit": "x",
    }  # fmt: skip


def test_a_table_says_what_was_not_run(kept):
    shown = DIGITS.render(dataclasses.replace(TINY, scale=0.5), kept.find)
    assert "Not run: sgd, baseline; sgd, ExploreExploit" in shown.markdown
    some = DIGITS.render(dataclasses.replace(TINY, methods=("knee", "baseline"), optimizers=("sgd",)), kept.find)
    lines = [line.split(" | ")[:2] for line in some.markdown.splitlines() if line.startswith("| sgd")]
    assert lines == [["| sgd", "baseline"], ["| sgd", "Knee"]]
    assert "adam" not in some.markdown
    assert "Not run" not in some.markdown


def test_curves_fits_superbatches_and_the_hypothesis_are_drawn_from_their_runs(kept, tmp_path):
    spec = dataclasses.replace(TINY, methods=(), optimizers=())
    curves = Curves("figure-digits", "Digits", DIGITS, "adam")
    probing = Method("probing", "explore-exploit", policy={"validation_eps": VALIDATION_EPS})
    fits = Fits("fits-digits", "Fits", (("digits", "digits", "sgd"),), probing)
    little = Method("a little", "fixed", length=0.5, measure="superbatch")
    noise = Superbatch("noise-digits", "Noise", (("digits", "digits", "sgd"),), little)
    short = Method("short", "staircase", {"stairs": (0.2, 0.6)}, measure="width")
    wide = Hypothesis("wide-digits", "Wide", "digits", "digits", ("sgd",), (short,), (TRAIN_LOSS, ACCURACY), 3)
    asked = [(curves, TINY), (fits, spec), (noise, spec), (wide, dataclasses.replace(spec, seeds=3))]
    shown = {}
    for experiment, how in asked:
        run_here([experiment], how, kept)
        shown |= reproduce([experiment], how, kept, tmp_path, run=False)
    pictures = {name: png for one in shown.values() for name, png in one.pictures.items()}
    assert pictures.keys() == {"figure-digits.png", "fits-digits-digits.png", "noise-digits.png", "wide-digits.png"}
    for name in pictures:
        (found,) = tmp_path.glob(f"*/{name}")
        assert found.read_bytes()[:4] == b"\x89PNG"
    # Of superbatches: the scatter falls with their size.
    scatter = [float(line["sd"]) for line in shown["noise-digits"].csv]
    assert scatter[-1] < scatter[0]
    assert "Spearman" in shown["wide-digits"].markdown


def test_the_true_loss_at_a_minimum_is_that_of_the_same_probe(kept, tmp_path):
    spec = dataclasses.replace(TINY, methods=(), optimizers=())
    probing = Method("probing", "explore-exploit", policy={"validation_eps": VALIDATION_EPS})
    fits = Fits("fits-digits", "Fits", (("digits", "digits", "sgd"),), probing)
    run_here([fits], spec, kept)
    (first,) = fits.runs(spec)
    row = kept.find(first)
    again = kept.find(fits.second(first, row))
    # The same run to the bit, although its probes took more samples.
    assert [line["test_loss"] for line in row["epochs"]] == [line["test_loss"] for line in again["epochs"]]
    before, after = ([one for one in decisions_of(each) if one.validation_eps] for each in (row, again))
    assert [one.losses for one in before] == [one.losses for one in after]
    minima = set(fits.second(first, row).policy["validation_eps"]) - set(VALIDATION_EPS)
    assert minima
    assert minima <= {one.eps_min for one in before}
    for probe in after:
        assert set(probe.validation_eps) == {*VALIDATION_EPS, *minima}
        own = _with_own_minimum(probe, VALIDATION_EPS)
        assert set(own.validation_eps) == {*VALIDATION_EPS, *({probe.eps_min} & minima)}
    # The table tells of as many errors at a minimum as there are minima, within the samples and outside.
    shown = reproduce([fits], spec, kept, tmp_path, run=False)["fits-digits"].markdown
    told = [int(n) for n in re.findall(r"\((\d+)\)", shown.splitlines()[2])]
    assert sum(told) == len(minima)


def test_only_minima_outside_the_samples_are_shown_where_those_are_asked_for_near_and_far():
    fits = Fits("far", "Far", (("digits", "digits", "sgd"),), Method("probing", "explore-exploit"), outside=True)
    usual = {"step": 1, "lr_before": 0.1, "lr_after": 0.1, "eps": [-0.5, 0.5], "losses": [1.0, 1.0]}
    usual |= {"validation_eps": [0.1], "validation_losses": [1.0], "phase": "explore", "verdict": "keep"}
    minima = [0.2, None, -1.5, -0.9, *(0.5 + 0.25 * n for n in range(1, 13)), 40.0]
    row = {"decisions": [{**usual, "step": step, "eps_min": at} for step, at in enumerate(minima)]}
    chosen = [probe.eps_min for probe in fits._chosen(row)]
    assert len(chosen) == 6
    assert (min(chosen), max(chosen)) == (0.75, 3.5)  # not within, not before the step's start, not out of sight
    assert chosen == sorted(chosen)  # in the order of the steps


def test_costs_are_of_the_parts_of_a_run(kept):
    rendered = Costs("costs-digits", "Costs", (DIGITS,)).render(TINY, kept.find)
    assert len(rendered.csv) == 2 * 2  # seeds, optimizers
    for line in rendered.csv:
        assert line["all"] == pytest.approx(line["probes"] + line["checks"] + line["search"] + line["snapshots"])
        assert line["search"] == 0


def test_costs_of_a_search_stand_beside_those_of_probes_and_have_no_formula():
    # 100 steps: 300 forward equivalents of their own.
    cost = {
        "first": 1,
        "probes": 0,
        "drop_rate": 0,
        "divergence": 5,
        "search": 30,
        "snapshots": 3,
        "discarded_steps": 1,
    }
    (settings,) = (s for s in DIGITS.runs(ONE_FOUND) if s.schedule == "find-peak")
    row = {
        "settings": dataclasses.asdict(settings), "resumed": [],
        "provenance": {"commit": "c", "machine": "m", "torch": "t", "threads": 1},
        "result": {"steps": 100, "cost": cost, "cost_share": 0.14, "cost_seconds": 1.0, "own_seconds": 4.0},
    }  # fmt: skip
    rendered = Costs("costs", "Costs", (DIGITS,)).render(ONE_FOUND, lambda s: row if s == settings else None)
    (line,) = rendered.csv
    assert (line["search"], line["checks"], line["snapshots"], line["seconds"]) == pytest.approx((10, 2, 2, 25))
    assert line["all"] == pytest.approx(14)
    assert math.isnan(line["formula"])
    assert "| find_peak | 1 | - |" in rendered.markdown


def test_gains_are_of_the_same_seed_with_students_interval(kept):
    rendered = Differences("gains", "Gains", ((DIGITS, "test_accuracy"),)).render(TINY, kept.find)
    assert len(rendered.csv) == 2 * 2  # each optimizer against each other method
    (line,) = [x for x in rendered.csv if (x["optimizer"], x["against"]) == ("sgd", "Knee")]
    mine, other = (
        [100 * row["result"]["test_accuracy"] for row in rows_of(kept, "sgd", label)]
        for label in ("ExploreExploit", "Knee")
    )
    gains = [a - b for a, b in zip(mine, other, strict=True)]
    # Two runs: Student's t with one degree of freedom at 97.5 % is tan(0.475 pi), the half width t * sd / sqrt(2).
    half = math.tan(0.475 * math.pi) * statistics.stdev(gains) / math.sqrt(2)
    assert line["gain"] == pytest.approx(statistics.fmean(gains))
    assert (line["low"], line["high"]) == pytest.approx((line["gain"] - half, line["gain"] + half))
    assert {x["verdict"] for x in rendered.csv} <= {"gain", "loss", "as good", "cannot tell"}
    assert "all 4 comparisons" in rendered.markdown


def test_pairs_of_two_kinds_of_machine_are_named(kept):
    gains = Differences("gains", "Gains", ((DIGITS, "test_accuracy"),))
    assert "different kinds of machine" not in gains.render(TINY, kept.find).markdown

    def elsewhere(settings):
        row = kept.find(settings)
        there = {**row["provenance"], "machine": "another"} if row and settings.schedule == "knee" else None
        return {**row, "provenance": there} if there else row

    rendered = gains.render(TINY, elsewhere)
    assert "In 2 comparisons" in rendered.markdown
    assert "digits, sgd, Knee; digits, adam, Knee" in rendered.markdown
    assert {line["against"] for line in rendered.csv if line["machines"] == "two kinds"} == {"Knee"}


def test_the_papers_gain_stands_beside_ours():
    assert papers_gain(TABLE_9, "momentum", "ExploreExploit", "baseline", "test_accuracy") == "+2.35"
    assert papers_gain(TABLE_9, "momentum", "ExploreExploit", "Knee", "test_accuracy") == ""


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1.0, math.nan, 3.0], f"2.0 ± {math.sqrt(2):.1f} (1 of 3 not finite)"),
        ([math.nan, 3.0], "3.0 (1 of 2 not finite)"),
        ([math.nan], "-"),
        ([], "-"),
        ([2.0], "2.0"),
        ([1.0, 3.0], f"2.0 ± {math.sqrt(2):.1f}"),
    ],
)
def test_a_mean_has_its_spread_where_there_is_one_and_counts_what_diverged(values, told):
    assert mean_and_sd(values, "{:.1f}") == told


@pytest.mark.parametrize(
    "spec", [RunSpec(optimizers=("adamw",)), RunSpec(methods=("baseline",))], ids=["optimizer", "method"]
)
def test_every_experiment_shows_something_where_nothing_of_it_was_asked_for(spec):
    for experiment in EXPERIMENTS.values():
        runs = experiment.runs(spec)
        assert all(s.optimizer == "adamw" for s in runs) or not spec.optimizers
        experiment.render(spec, lambda _: None)


# What the paper says.


def test_the_explore_tables_are_the_papers_numbers_of_epochs():
    stairs = [method.options["stairs"] for method in TABLE_1.methods]
    epochs = [[round(200 * s) for s in pair] for pair in stairs]
    assert epochs == [[40, 120], [50, 125], [60, 130], [80, 140]]
    assert [200 * method.policy["explore"] for method in TABLE_2.methods] == [0, 10, 25, 50]


def test_every_table_and_figure_of_the_paper_has_its_name():
    papers = {f"table{n}" for n in range(1, 10)} | {f"figure{n}" for n in range(1, 20)} | {"hypothesis", "appendix-c"}
    assert papers <= EXPERIMENTS.keys()
    for name, experiment in EXPERIMENTS.items():
        assert experiment.name == name
        assert experiment.title


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_run_of_an_experiment_can_be_asked_for(name, small):
    runs = EXPERIMENTS[name].runs(RunSpec(scale=0.01, seeds=1, small=small))
    for settings in runs:
        assert settings.epochs >= 1
        assert settings.batch_size == WORKLOADS[settings.workload].batch_size
    assert len({settings_key(s) for s in runs}) == len(runs)


def test_the_adam_baseline_of_table_4_is_the_papers_fixed_rate():
    spec = RunSpec(seeds=1)
    schedules = {o: TABLE_4.settings(spec, o, TABLE_4.methods[0], 0).schedule for o in TABLE_4.optimizers}
    assert schedules == {"sgd": "staircase", "momentum": "staircase", "adam": "fixed"}


# The command.


def test_the_command_plans_runs_shows_and_reuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["reproduce", "digits", "--scale", "0.025", "--seeds", "1", "--methods", "knee,baseline", "--device", "cpu"]
    asked += ["--optimizers", "adam"]
    planned = CliRunner().invoke(app, [*asked, "--plan"])
    assert "2 runs in all, 2 of them to be run." in planned.output
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "2 of 2" in done.output
    assert "| adam | Knee | 1 |" in done.output
    again = CliRunner().invoke(app, asked)
    assert " of 2:" not in again.output
    assert (tmp_path / "reproduced" / "digits" / "table.csv").exists()
    assert "2 runs in all, 0 of them" in CliRunner().invoke(app, [*asked, "--plan"]).output


def test_the_command_shows_table_7_without_running_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["reproduce", "table7"])
    assert shown.output.count("| yes |") == 6
    assert "NO" not in shown.output


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["table10"], "table1"),
        (["table9", "--scale", "0"], "--scale must be"),
        (["table9", "--methods", "knees"], "knee"),
        (["table9", "--optimizers", "lion"], "lion"),
    ],
)
def test_what_makes_no_sense_is_refused(asked, told):
    result = CliRunner().invoke(app, ["reproduce", *asked])
    assert result.exit_code == 2
    plain = " ".join(re.sub(r"[│╭╮╰╯─\n]", " ", result.output).split())
    assert told in plain
