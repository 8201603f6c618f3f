"""Kept results: what is written comes back, records are never changed, and runs are found again."""

import dataclasses
import json
import math

import pytest

from autolr_lab.paper.paper import TABLE_9
from autolr_lab.paper.tables import ACCURACY
from autolr_lab.runner import store as store_module
from autolr_lab.runner.experiment import RunSpec
from autolr_lab.runner.jobs import run_job
from autolr_lab.runner.results import Record, Results, run_key
from autolr_lab.runner.same_code import SameCode
from autolr_lab.runner.store import Store, decisions_of, experiment, find_in_record, folder_name, settings_key
from autolr_lab.training.runs import Settings, read_run

KEPT = Results()
SETTINGS = Settings("digits", "sgd", "cosine", 0.1, 2, 64, 0)


def row(settings=SETTINGS, *, accuracy=0.9, code="0123456789ab", seconds=1.0, **more):
    """A run that came to so much."""
    own = {k: v for k, v in dataclasses.asdict(settings).items() if k != "data_dir"}
    result = {"test_accuracy": accuracy, "seconds": seconds, "loss": 1e-17 / 3}
    return {
        "settings": own, "code": code, "provenance": {"commit": "c", "started": "2026-12-01"}, "resumed": [],
        "result": result, "epochs": [{"epoch": 1, "step": 23, "lr": 0.1}], **more,
    }  # fmt: skip


def record(name="2026-12-01_study_c", **more):
    return Record(
        name, "study", "a claim", {"started": f"2026-12-01T{len(more)}", "commit": "c"}, {"scale": 1.0}, **more
    )


# What is kept.


def test_a_record_comes_back_to_the_last_bit(tmp_path):
    rows = [row(dataclasses.replace(SETTINGS, seed=seed), steps=[{"step": 10, "loss": 0.1 + 0.2}]) for seed in (1, 0)]
    measured = [{"x": 1e-300, "inside": {"y": [None, 2.5]}}, {"z": "words"}]
    Results(tmp_path).add(record(), rows, measured, "| a |\n")
    back = Results(tmp_path)
    assert [{k: v for k, v in one.items() if k != "key"} for one in back.rows("2026-12-01_study_c")] == rows
    assert back.records["2026-12-01_study_c"].seeds == (0, 1)
    assert back.table("2026-12-01_study_c") == "| a |\n"
    entry = json.loads((tmp_path / "manifest.json").read_text())["2026-12-01_study_c"]
    assert (entry["claim"], entry["n"], entry["commit"]) == ("a claim", 2, "c")


def test_what_a_study_measured_comes_back_as_it_was(tmp_path):
    measured = [{"x": 1e-300, "inside": {"y": [None, 2.5]}}, {"z": "words"}]
    Results(tmp_path).add(record(), measured=measured)
    assert Results(tmp_path).rows("2026-12-01_study_c") == measured


def test_a_run_is_kept_once_whatever_number_of_records_name_it(tmp_path):
    results = Results(tmp_path)
    results.add(record("2026-12-01_a_c"), [row(), row(dataclasses.replace(SETTINGS, seed=1))])
    results.add(record("2026-12-01_b_c"), [row(seconds=2.0)])
    assert len(results.runs) == 2
    assert not (tmp_path / "runs" / "2026-12-01_b_c.parquet").exists()
    assert len(results.rows("2026-12-01_b_c")) == 1


def test_a_key_is_of_settings_code_and_outcome_and_not_of_time():
    assert run_key(row(seconds=5.0)) == run_key(row())
    others = [row(accuracy=0.8), row(code="another"), row(dataclasses.replace(SETTINGS, lr=0.2))]
    assert len({run_key(one) for one in (*others, row())}) == 4


def test_a_record_is_never_changed_and_one_that_is_not_there_is_named_with_those_that_are(tmp_path):
    results = Results(tmp_path)
    results.add(record(), [row()])
    with pytest.raises(ValueError, match="never changed"):
        results.add(record(), [row(accuracy=0.1)])
    with pytest.raises(KeyError, match=r"There are: 2026-12-01_study_c"):
        results.rows("2026-12-02_study_d")


# The records that there are.


def test_every_record_says_where_it_comes_from_and_what_rests_on_it():
    assert len(KEPT.records) >= 102
    for name, one in KEPT.records.items():
        assert {"machine", "torch", "python"} <= one.provenance.keys(), name
        assert one.claim, name
        assert one.spec, name
        assert one.runs or one.measurements or KEPT.table(name), name


def test_the_eps_of_kept_probes_are_in_multiples_of_the_step():
    probes = [d for run in KEPT.runs.values() for d in decisions_of(run) if d.eps]
    assert len(probes) > 600
    assert {max(d.eps) for d in probes} <= {0.5, 1.0}
    # The parabola is in the same unit: it goes through the samples that it was fitted to.
    for d in probes:
        if None not in (d.k0, *d.losses):
            misfit = [d.k0 + d.k1 * e + d.k2 * e**2 - loss for e, loss in zip(d.eps, d.losses, strict=True)]
            assert max(map(abs, misfit)) <= max(d.losses) - min(d.losses)
            assert d.eps_min is None or d.eps_min == pytest.approx(-d.k1 / (2 * d.k2))


def test_every_kept_run_has_its_own_key_and_can_be_asked_for():
    for key, one in KEPT.runs.items():
        settings = Settings.from_dict(one["settings"])
        assert one["key"] == key == run_key(one)
        assert settings_key(settings)
        assert math.isfinite(one["result"]["steps"])


def test_a_record_shows_its_own_runs_whatever_code_made_them():
    find = find_in_record(KEPT, "2026-11-25_table9_023205f3ee5a")
    found = TABLE_9.rows(RunSpec(scale=0.2, seeds=3), find)
    assert [len(found[optimizer, "ExploreExploit"]) for optimizer in ("sgd", "momentum", "adam")] == [3, 3, 3]
    accuracy = [ACCURACY.of(one) for one in found["momentum", "ExploreExploit"]]
    assert f"{sum(accuracy) / 3:.2f}" == "89.82"  # docs/results.md
    assert find(dataclasses.replace(SETTINGS, lr=77.0)) is None


# What makes two runs one experiment.

CHANGED = {
    "workload": "mnist", "optimizer": "adam", "schedule": "knee", "lr": 0.2, "epochs": 3, "batch_size": 33, "seed": 1,
    "schedule_options": {"warmup": 3}, "precision": "bfloat16", "measure": "width", "evaluations": 2,
    "equal_budget": True, "ranks": 2, "workers": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_a_setting_makes_another_experiment(name):
    assert settings_key(dataclasses.replace(SETTINGS, **{name: CHANGED[name]})) != settings_key(SETTINGS)


@pytest.mark.parametrize(("name", "value"), [("device", "cuda"), ("data_dir", "/elsewhere"), ("pinned", True)])
def test_the_place_does_not(name, value):
    assert settings_key(dataclasses.replace(SETTINGS, **{name: value})) == settings_key(SETTINGS)


def test_every_setting_is_one_or_the_other():
    assert {f.name for f in dataclasses.fields(Settings)} == {*CHANGED, "device", "data_dir", "pinned", "policy"}


def test_a_policys_setting_counts_where_it_is_not_the_default():
    def key(**policy):
        return settings_key(dataclasses.replace(SETTINGS, schedule="explore-exploit", policy=policy))

    assert key() == key(explore=0.2) == key(saturation=100) == key(saturation=100.0)
    assert len({key(), key(explore=0.3), key(saturation=50), key(validation_eps=(0.75,))}) == 4
    assert experiment(dataclasses.replace(SETTINGS, schedule="adaptive", policy={"confidence": 0.9})) == experiment(
        dataclasses.replace(SETTINGS, schedule="adaptive")
    )


# Found again.


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run in a store of its own."""
    store = Store(tmp_path_factory.mktemp("runs"))
    run_job(SETTINGS, store.folder(SETTINGS), threads=None)
    return store


@pytest.fixture
def other_code(monkeypatch):
    """From here on the code that decides a run is another one."""
    monkeypatch.setattr(store_module, "code_of", lambda _: "f" * 12)


def test_a_run_is_found_in_its_folder_and_in_the_results(ran, tmp_path):
    found = ran.find(SETTINGS)
    assert found["result"] == read_run(ran.folder(SETTINGS)).result
    Results(tmp_path).add(record(), [found])
    again = Store(tmp_path / "none", Results(tmp_path)).find(SETTINGS)
    assert {k: v for k, v in again.items() if k != "key"} == found
    assert Store(tmp_path / "none").find(SETTINGS) is None
    assert ran.find(dataclasses.replace(SETTINGS, seed=9)) is None


@pytest.mark.usefixtures("other_code")
def test_a_run_that_other_code_made_is_not_found(ran, tmp_path):
    Results(tmp_path).add(record(), [row()])
    assert ran.find(SETTINGS) is None
    assert Store(tmp_path / "none", Results(tmp_path)).find(SETTINGS) is None


def test_of_two_runs_by_one_code_the_later_record_counts(tmp_path, other_code):
    results = Results(tmp_path)
    results.add(record("2026-12-01_a_c"), [row(accuracy=0.1, code="f" * 12)])
    later = dataclasses.replace(record("2026-12-01_b_c"), provenance={"started": "2027"})
    results.add(later, [row(accuracy=0.2, code="f" * 12)])
    assert Store(tmp_path / "none", Results(tmp_path)).find(SETTINGS)["result"]["test_accuracy"] == 0.2


def test_code_that_comes_to_the_same_run_makes_its_former_runs_count(ran, tmp_path):
    old = {**ran.find(SETTINGS), "code": "former code"}
    results = Results(tmp_path)
    results.add(record(), [old])
    assert Store(tmp_path / "none", results).find(SETTINGS) is None
    assert SameCode(tmp_path).confirm(old)
    assert Store(tmp_path / "none", results).find(SETTINGS)["code"] == "former code"
    (pair,) = json.loads((tmp_path / "same_code.json").read_text())
    assert pair["same_as"] == "former code"


def test_code_that_comes_to_another_run_does_not(ran, tmp_path):
    old = {**ran.find(SETTINGS), "code": "former code"}
    worse = {**old, "result": {**old["result"], "test_loss": old["result"]["test_loss"] * (1 + 1e-15)}}
    assert not SameCode(tmp_path).confirm(worse)
    assert not (tmp_path / "same_code.json").exists()


def test_same_code_is_the_same_over_several_pairs(tmp_path):
    same = SameCode(tmp_path)
    same.pairs = [{"code": "b", "same_as": "a"}, {"code": "c", "same_as": "b"}, {"code": "z", "same_as": "y"}]
    assert same.accepted("a") == same.accepted("c") == {"a", "b", "c"}
    assert same.accepted("q") == {"q"}


def test_a_folder_is_named_by_what_is_asked_and_by_the_code(other_code):
    name = folder_name(SETTINGS)
    assert name.startswith("digits-sgd-cosine-0.1-2ep-seed0-")
    assert name.endswith("-ffffff")


def test_a_kept_row_is_the_run_as_far_as_a_picture_needs_it(tmp_path):
    tuned = dataclasses.replace(SETTINGS, schedule="explore-exploit", policy={"window": 10, "superbatch": 2})
    store = Store(tmp_path)
    run_job(tuned, store.folder(tuned), threads=None)
    run, kept = read_run(store.folder(tuned)), store.find(tuned)
    assert kept["epochs"] == run.epochs
    assert len(run.decisions) > 0
    assert [dataclasses.replace(d, reason="", seconds=0.0) for d in run.decisions] == decisions_of(kept)
