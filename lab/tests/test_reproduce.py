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
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autolr.bench import store
from autolr_lab.benchmark.costs import Costs
from autolr_lab.benchmark.differences import Differences, _papers_gain
from autolr_lab.runner.engine import carry_out, run_job
from autolr_lab.runner.experiment import Ask, Method, spread
from autolr_lab.paper.figures import Curves, Fits, Superbatch
from autolr_lab.paper.hypothesis import Hypothesis
from autolr_lab.paper.paper import DIGITS, EXPERIMENTS, VALIDATION_EPS, TABLE_1, TABLE_2, TABLE_4, TABLE_9
from autolr_lab.paper.reproduce import plan, reproduce
from autolr_lab.runner.store import Store, as_run, experiment, key, name, row
from autolr_lab.paper.tables import ACCURACY, TRAIN_LOSS
from autolr_lab.cli.main import app
from autolr.policies import ExploreExploit
from autolr_lab.training.provenance import portable
from autolr_lab.training.runs import RunError, Settings, read_run
from autolr_lab.workloads import WORKLOADS

TINY = Ask(scale=2 / 40, seeds=2)  # two epochs of the digits
SETTINGS = Settings("digits", "sgd", "cosine", 0.1, 2, 32, 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The digits' table with its runs."""
    root = tmp_path_factory.mktemp("digits")
    kept = Store(root / "runs", None)
    shown = reproduce([DIGITS], TINY, kept, root / "out", jobs=2, record=root / "records", report=lambda _: None)
    return root, kept, shown["digits"]


# What makes two runs one experiment.


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Settings)])
def test_a_run_is_another_experiment_by_everything_but_place_and_speed(field):
    others = {
        "workload": "mnist", "optimizer": "adam", "schedule": "knee", "lr": 0.2, "epochs": 3, "batch_size": 33,
        "seed": 1, "device": "cuda", "data_dir": "/elsewhere", "policy": None, "window": 7, "superbatch": 5,
        "validation_eps": (0.3,), "overhead": 0.1, "lend": True, "schedule_options": {"warmup": 3},
        "precision": "bfloat16", "compiled": True,
        "channels_last": True, "measure": "width", "evaluations": 2, "equal_budget": True,
    }  # fmt: skip
    if field == "policy":
        tuned = dataclasses.replace(SETTINGS, schedule="autolr", policy=dataclasses.asdict(ExploreExploit()))
        other = dataclasses.replace(tuned, policy=dataclasses.asdict(ExploreExploit(explore=0.5)))
        assert key(tuned) != key(other)
        return
    other = dataclasses.replace(SETTINGS, **{field: others[field]})
    assert (key(other) == key(SETTINGS)) == (field in {"device", "data_dir", "compiled", "channels_last"})


def test_a_setting_or_a_policys_option_that_is_new_and_at_its_default_leaves_old_runs_what_they_were():
    whole = dataclasses.asdict(ExploreExploit(explore=0.3))
    old = {k: v for k, v in whole.items() if k not in {"confidence", "least"}}
    tuned = dataclasses.replace(SETTINGS, schedule="autolr", policy=whole)
    assert experiment(tuned)["policy"] == {"explore": 0.3}
    assert key(dataclasses.replace(tuned, policy=old)) == key(tuned)
    as_json = json.loads(json.dumps(dataclasses.asdict(tuned)))
    del as_json["schedule_options"], as_json["measure"]
    assert key(Settings.from_dict(as_json)) == key(tuned)


def test_recorded_runs_are_found_by_what_is_asked_today():
    # The Fashion-MNIST runs that were recorded before there were tables: 10 epochs, 3 seeds.
    kept = Store(Path("nowhere"), Path(__file__).parent.parent / "benchmarks" / "records")
    found = TABLE_9.rows(Ask(scale=0.2, seeds=3), kept.find)
    assert [len(found[optimizer, "baseline"]) for optimizer in TABLE_9.optimizers] == [3, 3, 3]
    assert [len(found[optimizer, "AutoLR"]) for optimizer in TABLE_9.optimizers] == [3, 3, 3]
    accuracy = [ACCURACY.of(r) for r in found["momentum", "AutoLR"]]
    assert f"{statistics.fmean(accuracy):.2f}" == "89.82"  # docs/results.md


def test_a_run_from_before_a_trajectory_changed_is_not_taken_for_one_of_now(tmp_path, made, monkeypatch):
    root, kept, _ = made
    sure = next(s for s in DIGITS.cells(TINY) if s.overhead is not None)
    plain = next(s for s in DIGITS.cells(TINY) if s.schedule == "fixed")
    recorded = Store(tmp_path, root / "records")
    assert recorded.find(sure)["version"] == {"policy": store.ADAPTIVE}
    assert recorded.find(plain)["version"] == {}
    monkeypatch.setattr(store, "ADAPTIVE", store.ADAPTIVE + 1)
    for there in (Store(tmp_path, root / "records"), kept):
        assert there.find(sure) is None
        assert there.find(plain) is not None
    monkeypatch.setitem(WORKLOADS, "digits", dataclasses.replace(WORKLOADS["digits"], version=2))
    for there in (Store(tmp_path, root / "records"), kept):
        assert there.find(plain) is None


def test_of_two_records_of_one_run_the_later_one_counts_whatever_their_names(tmp_path, made):
    root, _, _ = made
    (record,) = (root / "records").iterdir()
    held = json.loads((record / "record.json").read_text())
    wanted = DIGITS.cells(TINY)[0]
    for name_, started, loss in (("b", "2026-01-01T00:00:00", 1.0), ("a", "2026-01-02T00:00:00", 2.0)):
        held["provenance"]["started"] = started
        for line in held["rows"]:
            line["result"]["train_loss"] = loss
        (tmp_path / name_).mkdir()
        (tmp_path / name_ / "record.json").write_text(json.dumps(held))
    assert Store(tmp_path / "none", tmp_path).find(wanted)["result"]["train_loss"] == 2.0


# Runs.


def test_what_is_there_is_not_run_again_and_what_was_cut_off_is_gone_on_with(tmp_path, made):
    _, kept, _ = made
    assert plan([DIGITS], TINY, kept).missing == []
    wanted = DIGITS.cells(TINY)
    assert plan([DIGITS], dataclasses.replace(TINY, seeds=3), kept).missing == [
        s for s in DIGITS.cells(dataclasses.replace(TINY, seeds=3)) if s.seed == 2
    ]
    folder = tmp_path / name(wanted[0])
    before = json.loads((kept.folder(wanted[0]) / "result.json").read_text())
    folder.mkdir()
    (folder / "run.json").write_bytes((kept.folder(wanted[0]) / "run.json").read_bytes())
    run_job(wanted[0], folder, threads=None)
    after = read_run(folder).result
    assert {k: v for k, v in after.items() if "seconds" not in k} == {
        k: v for k, v in before.items() if "seconds" not in k
    }
    stamp = (folder / "result.json").stat().st_mtime_ns
    run_job(wanted[0], folder, threads=None)
    assert (folder / "result.json").stat().st_mtime_ns == stamp


def test_a_run_that_fails_is_named_and_the_others_are_carried_out(tmp_path):
    good, bad = SETTINGS, dataclasses.replace(SETTINGS, lr=-1.0)
    done = []
    with pytest.raises(RunError, match=r"digits sgd cosine, seed 0, in .*bad: .*learning rate"):
        done.extend(carry_out([(bad, tmp_path / "bad"), (good, tmp_path / "good")]))
    assert read_run(tmp_path / "good").result is not None


@pytest.mark.distributed
def test_over_ray_a_killed_worker_costs_nothing_but_time(tmp_path):
    ray = pytest.importorskip("ray")
    longer = dataclasses.replace(SETTINGS, epochs=12)
    jobs = [(dataclasses.replace(longer, seed=seed), tmp_path / f"ray{seed}") for seed in (0, 1, 2)]
    killed = []
    killer = threading.Thread(target=_kill_a_worker_under_way, args=(tmp_path, killed), daemon=True)
    killer.start()
    assert sorted(carry_out(jobs, engine="ray", workers=2, every=0)) == [folder for _, folder in jobs]
    killer.join()
    assert len(killed) == 1
    assert not ray.is_initialized()
    resumed = [len(json.loads((folder / "run.json").read_text())["resumed"]) for _, folder in jobs]
    assert sorted(resumed) == [0, 0, 1]
    for settings, folder in jobs:
        assert _comparable(folder) == _comparable(run_job(settings, tmp_path / f"plain{settings.seed}", threads=1))


def _kill_a_worker_under_way(root, killed, name="ray::_plain_job"):
    """SIGKILL to one of two workers, once a run has a checkpoint behind its first lines."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        logs = [path for path in root.glob("ray*/steps.jsonl") if path.read_text().count("\n") > 5]
        if any((path.parent / "checkpoint.pt").exists() for path in logs):
            found = subprocess.run(["pgrep", "-f", name], capture_output=True, text=True, check=False)
            ours = [pid for pid in found.stdout.split() if name.startswith("ray") or _parent(pid) == os.getpid()]
            if ours:
                os.kill(int(ours[0]), signal.SIGKILL)
                killed.append(ours[0])
                return
        time.sleep(0.05)


@pytest.mark.distributed
def test_a_worker_killed_on_this_machine_costs_nothing_but_time(tmp_path):
    longer = dataclasses.replace(SETTINGS, epochs=12)
    jobs = [(dataclasses.replace(longer, seed=seed), tmp_path / f"ray{seed}") for seed in (0, 1, 2)]
    killed = []
    killer = threading.Thread(target=_kill_a_worker_under_way, args=(tmp_path, killed, "spawn_main"), daemon=True)
    killer.start()
    assert sorted(carry_out(jobs, workers=2, every=0)) == [folder for _, folder in jobs]
    killer.join()
    assert len(killed) == 1
    for settings, folder in jobs:
        assert _comparable(folder) == _comparable(run_job(settings, tmp_path / f"plain{settings.seed}", threads=1))


def test_a_run_that_is_gone_on_with_stays_on_the_device_and_in_the_layout_that_it_has(tmp_path):
    begun = dataclasses.replace(SETTINGS, channels_last=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"settings": dataclasses.asdict(begun), "provenance": {}}))
    run_job(dataclasses.replace(SETTINGS, compiled=True, device="cuda"), tmp_path / "run", threads=None)
    assert read_run(tmp_path / "run").settings == begun


def _comparable(folder):
    run = read_run(folder)
    return run.epochs, run.steps, {k: v for k, v in run.result.items() if "seconds" not in k}


def _parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


# What is shown.


def test_a_table_has_mean_spread_and_n_of_the_runs_themselves(made):
    _, kept, shown = made
    lines = [line for line in shown.markdown.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(DIGITS.optimizers) * len(DIGITS.methods)
    cells = [cell.strip() for cell in next(x for x in lines if "| adam | Knee |" in x).strip("|").split("|")]
    accuracy = [100 * kept.find(s)["result"]["test_accuracy"] for s in _cells_of("adam", "Knee")]
    assert cells[2] == "2"
    assert cells[4] == f"{statistics.fmean(accuracy):.2f} ± {statistics.stdev(accuracy):.2f}"
    (line,) = [x for x in shown.csv if (x["optimizer"], x["method"], x["metric"]) == ("adam", "Knee", ACCURACY.title)]
    assert line["mean"] == pytest.approx(statistics.fmean(accuracy))
    assert line["sd"] == pytest.approx(statistics.stdev(accuracy))


def _cells_of(optimizer, label):
    (method,) = [m for m in DIGITS.methods if m.label == label]
    return [DIGITS.settings(TINY, optimizer, method, seed) for seed in range(2)]


def test_the_files_are_markdown_and_csv_and_the_record_says_how_to_run_it_again(made):
    root, _, shown = made
    assert shown.markdown in (root / "out" / "digits" / "table.md").read_text()
    with (root / "out" / "digits" / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(shown.csv)
    (record,) = (root / "records").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_digits_[0-9a-f]{12}\+?", record.name)
    held = json.loads((record / "record.json").read_text())
    assert held["settings"]["scale"] == TINY.scale
    assert {r["key"] for r in held["rows"]} == {key(s) for s in DIGITS.cells(TINY)}
    again = DIGITS.show(TINY, Store(root / "none", root / "records").find)
    assert again.markdown == shown.markdown  # a record is all it takes


def test_a_record_s_commands_do_not_say_where_things_lay():
    told = "autolr reproduce table9 --runs /there --scale 0.2 --out=/else --data-dir '/a b' --record"
    assert portable({"command": told, "commit": "x"}) == {
        "command": "autolr reproduce table9 --scale 0.2 --record", "commit": "x",
    }  # fmt: skip


def test_a_table_says_what_was_not_run(made):
    _, kept, _ = made
    shown = DIGITS.show(dataclasses.replace(TINY, scale=0.5), kept.find)
    assert "Not run: sgd, baseline; sgd, AutoLR" in shown.markdown
    some = DIGITS.show(dataclasses.replace(TINY, methods=("knee", "AutoLR"), optimizers=("sgd",)), kept.find)
    lines = [line.split(" | ")[:2] for line in some.markdown.splitlines() if line.startswith("| sgd")]
    assert lines == [["| sgd", "AutoLR"], ["| sgd", "Knee"]]
    assert "adam" not in some.markdown
    assert "Not run" not in some.markdown


def test_a_row_is_the_run_as_far_as_a_picture_needs_it(made):
    _, kept, _ = made
    (settings, *_) = _cells_of("adam", "AutoLR")
    run, back = read_run(kept.folder(settings)), as_run(row(read_run(kept.folder(settings))))
    assert back.epochs == run.epochs
    assert back.settings == dataclasses.replace(run.settings, data_dir=None)
    assert len(back.decisions) == len(run.decisions) > 0
    assert [dataclasses.replace(d, reason="", seconds=0.0) for d in run.decisions] == back.decisions


def test_curves_fits_superbatches_costs_and_the_hypothesis_are_drawn_from_their_runs(made, tmp_path):
    _, kept, _ = made
    curves = Curves("figure-digits", "Digits", DIGITS, "adam")
    is_probing = Method("is_probing", "autolr", validation_eps=VALIDATION_EPS)
    fits = Fits("fits-digits", "Fits", (("digits", "digits", "sgd"),), is_probing)
    noise = Superbatch("noise-digits", "Noise", (("digits", "digits", "sgd"),),
                       Method("a little", "fixed", length=0.5, measure="superbatch"))  # fmt: skip
    wide = Hypothesis("wide-digits", "Wide", "digits", "digits", ("sgd",),
                      (Method("short", "staircase", {"stairs": (0.2, 0.6)}, measure="width"),),
                      (TRAIN_LOSS, ACCURACY), 4)  # fmt: skip
    costs = Costs("costs-digits", "Costs", (DIGITS,))
    shown = reproduce([curves, fits, noise, costs], TINY, kept, tmp_path, jobs=2, report=lambda _: None)
    shown |= reproduce([wide], dataclasses.replace(TINY, seeds=4), kept, tmp_path, jobs=2, report=lambda _: None)
    pictures = {p: png for s in shown.values() for p, png in s.pictures.items()}
    assert pictures.keys() == {"figure-digits.png", "fits-digits-digits.png", "noise-digits.png", "wide-digits.png"}
    for file, png in pictures.items():
        (found,) = tmp_path.glob(f"*/{file}")
        assert found.read_bytes() == png
        assert png[:4] == b"\x89PNG"
    # Of superbatches: the scatter falls with their size.
    noises = [float(line["sd"]) for line in shown["noise-digits"].csv]
    assert noises[-1] < noises[0]
    assert "Spearman" in shown["wide-digits"].markdown
    assert len(shown["costs-digits"].csv) == 2 * 3 * 2  # seeds, optimizers, two policies
    for line in shown["costs-digits"].csv:
        assert line["all"] == pytest.approx(line["looks"] + line["checks"] + line["snapshots"])


def test_gains_are_of_the_same_seed_with_students_interval_and_a_verdict_that_it_decides(made):
    _, kept, _ = made
    differences = Differences("gains", "Gains", ((DIGITS, "test_accuracy"),))
    shown = differences.show(TINY, kept.find)
    assert len(shown.csv) == 3 * 4  # each optimizer against each other method
    (line,) = [x for x in shown.csv if (x["optimizer"], x["against"]) == ("sgd", "Knee")]
    mine, other = (
        [100 * kept.find(s)["result"]["test_accuracy"] for s in _cells_of("sgd", x)] for x in ("AutoLR", "Knee")
    )
    gains = [a - b for a, b in zip(mine, other, strict=True)]
    # Two runs: Student's t with one degree of freedom at 95 % is tan(0.45 pi), and the half width t * sd / sqrt(2).
    half = math.tan(0.45 * math.pi) * statistics.stdev(gains) / math.sqrt(2)
    assert line["gain"] == pytest.approx(statistics.fmean(gains))
    assert (line["low"], line["high"]) == pytest.approx((line["gain"] - half, line["gain"] + half))
    for found in shown.csv:
        told = "gain" if found["low"] > 0 else "loss" if found["high"] < 0 else "cannot tell"
        (row_,) = [x for x in shown.markdown.splitlines() if f"| {found['optimizer']} | {found['against']} |" in x]
        assert f"| {told} |" in row_


def test_the_papers_gain_stands_beside_ours():
    assert _papers_gain(TABLE_9, "momentum", "AutoLR", "baseline", "test_accuracy") == "+2.35"
    assert _papers_gain(TABLE_9, "momentum", "AutoLR", "Knee", "test_accuracy") == ""


def test_a_run_that_diverged_is_named_and_spoils_no_mean():
    assert spread([1.0, math.nan, 3.0], "{:.1f}") == f"2.0 ± {math.sqrt(2):.1f} (1 of 3 not finite)"
    assert spread([math.nan, 3.0], "{:.1f}") == "3.0 (1 of 2 not finite)"
    assert spread([math.nan], "{:.1f}") == "-"


@pytest.mark.parametrize("asked", [Ask(optimizers=("adamw",)), Ask(methods=("baseline",))], ids=["optimizer", "method"])
def test_every_experiment_shows_something_where_nothing_of_it_was_asked_for(asked):
    for made_ in EXPERIMENTS.values():
        cells = made_.cells(asked)
        assert all(s.optimizer == "adamw" for s in cells) or not asked.optimizers
        made_.show(asked, lambda settings: None)  # noqa: ARG005


def test_a_mean_comes_with_its_spread_only_where_there_is_one():
    assert spread([], "{:.1f}") == "-"
    assert spread([2.0], "{:.1f}") == "2.0"
    assert spread([1.0, 3.0], "{:.1f}") == f"2.0 ± {math.sqrt(2):.1f}"


# What the paper says.


def test_the_explore_tables_are_the_papers_numbers_of_epochs():
    stairs = [method.options["stairs"] for method in TABLE_1.methods]
    epochs = [[round(200 * s) for s in pair] for pair in stairs]
    assert epochs == [[40, 120], [50, 125], [60, 130], [80, 140]]
    assert [200 * method.policy["explore"] for method in TABLE_2.methods] == [0, 10, 25, 50]


def test_every_table_and_figure_of_the_paper_has_its_name():
    papers = {f"table{n}" for n in range(1, 10)} | {f"figure{n}" for n in range(1, 20)} | {"hypothesis", "appendix-c"}
    assert papers <= EXPERIMENTS.keys()
    for known, made in EXPERIMENTS.items():
        assert made.name == known
        assert made.title


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("experiment_name", EXPERIMENTS)
def test_every_cell_is_a_run_that_can_be_asked_for(experiment_name, small):
    cells = EXPERIMENTS[experiment_name].cells(Ask(scale=0.01, seeds=1, small=small))
    for settings in cells:
        workload = WORKLOADS[settings.workload]
        assert settings.epochs >= 1
        assert settings.batch_size == workload.batch_size
    assert len({key(s) for s in cells}) == len(cells)


def test_the_adam_baseline_of_table_4_is_the_papers_fixed_rate():
    ask = Ask(seeds=1)
    schedules = {o: TABLE_4.settings(ask, o, TABLE_4.methods[0], 0).schedule for o in TABLE_4.optimizers}
    assert schedules == {"sgd": "staircase", "momentum": "staircase", "adam": "fixed"}


# The command.


def test_the_command_plans_runs_shows_and_reuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["reproduce", "digits", "--scale", "0.025", "--seeds", "1", "--methods", "knee,baseline", "--device", "cpu"]
    planned = CliRunner().invoke(app, [*asked, "--plan"])
    assert "6 runs in all, 6 of them to be run." in planned.output
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "6 of 6" in done.output
    assert "| adam | Knee | 1 |" in done.output
    again = CliRunner().invoke(app, asked)
    assert " of 6:" not in again.output
    assert (tmp_path / "reproduced" / "digits" / "table.csv").exists()
    assert "6 runs in all, 0 of them" in CliRunner().invoke(app, [*asked, "--plan"]).output


def test_the_command_shows_table_7_without_running_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["reproduce", "table7"])
    assert shown.output.count("| yes |") == 6
    assert "NO" not in shown.output


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["table10"], "There is no table or figure 'table10'. Did you mean table1"),
        (["table9", "--scale", "0"], "--scale must be a share"),
        (["table9", "--engine", "slurm"], "There is no engine 'slurm'"),
        (["table9", "--methods", "knees"], "There is no method 'knees'. Did you mean knee?"),
        (["table9", "--optimizers", "lion"], "There is no optimizer 'lion'"),
    ],
)
def test_what_makes_no_sense_is_refused(asked, told):
    result = CliRunner().invoke(app, ["reproduce", *asked])
    assert result.exit_code == 2
    plain = " ".join(re.sub(r"[│╭╮╰╯─\n]", " ", result.output).split())
    assert told in plain
