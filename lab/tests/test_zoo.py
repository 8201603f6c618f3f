"""The zoo: its tasks train, its split stays as it was, and its runs repeat to the bit and are never done twice."""

import math
from itertools import islice

import pytest
import torch

from autolr_lab.zoo.fingerprint import definitions, fingerprint, named, trees
from autolr_lab.zoo.lattice import NEEDED, bracket
from autolr_lab.zoo.registry import BY_NAME, LEARN, PAIRS, TASKS, Pair, side
from autolr_lab.zoo.short_runs import short_runs
from autolr_lab.zoo.store import Store, pack, unpack
from autolr_lab.zoo.training import Outcome, held_out_loss, shape, start, train

QUICK = Pair(BY_NAME["wine-mlp"], "adamw")
NOISY = Pair(BY_NAME["rings-vae"], "momentum")  # its loss draws noise


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_split_is_balanced_within_each_kind_and_over_all():
    assert set(BY_NAME) >= LEARN
    for kind in {task.kind for task in TASKS}:
        sides = [side(task) for task in TASKS if task.kind == kind]
        assert abs(sides.count("learn") - sides.count("report")) <= 1, kind
    assert abs(2 * len(LEARN) - len(TASKS)) <= 1
    learned = sum(pair.task.name in LEARN for pair in PAIRS)
    assert abs(2 * learned - len(PAIRS)) < 0.15 * len(PAIRS)


def test_split_has_not_moved_since_the_first_result():
    # In the order of the first registry, every other task: a task that is added later goes to a side by hand.
    assert [task.name for task in TASKS if task.name in LEARN] == [task.name for task in TASKS[::2]]
    assert len(TASKS) == 57


def test_names_are_unique_and_over_a_hundred_pairs():
    assert len(BY_NAME) == len(TASKS) >= 40
    assert len({pair.name for pair in PAIRS}) == len(PAIRS) > 100


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_task_builds_and_its_loss_is_positive_and_reaches_every_parameter(task):
    begun = start(task, 0)
    assert 0 < begun.eval_loss < math.inf
    assert all(0 < loss < math.inf for loss in begun.judge_losses)
    loss = task.loss(begun.model.train(), next(begun.minibatches()))
    loss.backward()
    for name, parameter in begun.model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        parameter.grad = None
    assert held_out_loss(task, begun.model) > 0
    start.cache_clear()  # BatchNorm's statistics have moved


@pytest.mark.parametrize("optimizer", sorted({pair.optimizer for pair in PAIRS}))
def test_every_optimizer_lowers_the_loss_of_an_easy_task(optimizer):
    rate = {"sgd": 0.5, "adagrad": 0.1}.get(optimizer, 0.01)
    found = train(Pair(QUICK.task, optimizer), 0, rate, 40)
    assert sum(found.judge_losses) < 0.7 * sum(start(QUICK.task, 0).judge_losses)


@pytest.mark.parametrize("pair", [QUICK, NOISY, Pair(BY_NAME["digits-dropout"], "nadam")], ids=lambda pair: pair.name)
def test_same_seed_is_the_same_run_to_the_bit_and_another_seed_is_not(pair):
    def run(seed: int) -> Outcome:
        start.cache_clear()
        torch.rand(1)  # what happens outside must not matter
        return train(pair, seed, 2.0**-9, 15)

    first, again, other = run(0), run(0), run(1)
    assert (first.eval_loss, first.judge_losses) == (again.eval_loss, again.judge_losses)
    assert first.eval_loss != other.eval_loss


def test_runs_leave_the_global_generator_and_the_start_alone():
    state = torch.get_rng_state()
    begun = start(NOISY.task, 0)
    weights = [parameter.clone() for parameter in begun.model.parameters()]
    train(NOISY, 0, 2.0**-9, 5)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(weights, begun.model.parameters(), strict=True))


def test_short_runs_of_different_lengths_see_the_same_minibatches():
    begun = start(BY_NAME["friedman-huber"], 0)
    short, long = list(islice(begun.minibatches(), 20)), list(islice(begun.minibatches(), 40))
    for one, other in zip(short, long[:20], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    # The data is large enough for the judges to be other examples than those trained on.
    trained = {tuple(row) for batch in long for row in batch[0].tolist()}
    assert not any(tuple(row) in trained for judge in begun.judges for row in judge[0].tolist())


def test_a_run_that_overflows_breaks_off_and_counts_as_diverged():
    found = train(Pair(BY_NAME["large-targets"], "sgd"), 0, 2.0**10, 40)
    assert not math.isfinite(found.eval_loss)
    assert not any(math.isfinite(loss) for loss in found.judge_losses)


def test_shape_warms_up_holds_and_ends_just_above_zero():
    assert [shape(step, 8, 0.05) for step in range(1, 9)] == pytest.approx([1, 1, 1, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5])
    assert shape(1, 100, 0.05) == pytest.approx(1 / 5)
    assert shape(50, 100, 0.05) == 1.0
    assert shape(100, 100, 0.05) == pytest.approx(1 / 51)


@pytest.mark.parametrize("bottom", [-9, -3, 0, 4])
def test_bracket_ends_with_two_clearly_worse_rates_on_either_side(bottom):
    tried = {}

    def attempt(k: int) -> float:
        tried[k] = 1.0 + 0.3 * (k - bottom) ** 2 if k < bottom + 3 else math.nan
        return tried[k]

    bracket(attempt, 10.0, 0)
    assert min(tried) <= bottom - NEEDED
    assert max(tried) >= bottom + NEEDED
    assert sorted(tried) == list(range(min(tried), max(tried) + 1))


def test_bracket_gives_up_where_no_rate_helps():
    tried = []
    bracket(lambda k: tried.append(k) or math.nan, 1.0, 0)
    assert max(tried) <= NEEDED
    assert len(tried) < 20


def test_store_is_resumed_without_repeating_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr("autolr_lab.zoo.short_runs.LENGTHS", (10,))
    path = tmp_path / "rows.jsonl"
    short_runs(Store(path), QUICK, 0)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:40])  # killed while it wrote the last row
    short_runs(Store(path), QUICK, 0)
    resumed = Store(path)
    assert len(path.read_text().splitlines()) == len(lines) + 1
    assert sorted(resumed.rows) == sorted(row.key for row in resumed.rows.values())
    assert len(resumed.rows) == len(lines)
    short_runs(resumed, QUICK, 0)
    assert len(path.read_text().splitlines()) == len(lines) + 1


def test_rows_of_code_that_changed_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("autolr_lab.zoo.short_runs.LENGTHS", (10,))
    path = tmp_path / "rows.jsonl"
    short_runs(Store(path), QUICK, 0)
    path.write_text(path.read_text().replace(fingerprint("wine-mlp"), "0" * 12))
    old = Store(path)
    assert not old.rows
    assert old.stale > 0


def test_packed_table_gives_the_rows_back(tmp_path, monkeypatch):
    monkeypatch.setattr("autolr_lab.zoo.short_runs.LENGTHS", (10,))
    store = Store(tmp_path / "rows.jsonl")
    short_runs(store, QUICK, 0)
    pack(store.rows.values(), tmp_path / "short.csv.gz")
    once = (tmp_path / "short.csv.gz").read_bytes()
    pack(reversed(store.rows.values()), tmp_path / "short.csv.gz")
    assert (tmp_path / "short.csv.gz").read_bytes() == once
    for row in unpack(tmp_path / "short.csv.gz"):
        kept = store.rows[row.key]
        assert row.after == pytest.approx(kept.after, rel=1e-6, nan_ok=True)
        assert (row.diverged, row.code, row.torch) == (kept.diverged, kept.code, kept.torch)


def test_fingerprint_tells_tasks_apart_and_reaches_what_they_use():
    assert len({fingerprint(task.name) for task in TASKS}) == len(TASKS)
    assert {"train", "shape", "Minibatches", "OPTIMIZERS", *BY_NAME} <= set(definitions())


def test_no_two_files_that_decide_a_run_define_the_same_name():
    names = [name for tree in trees() for node in tree.body for name, _ in named(node) if name not in {"TASKS", "LONG"}]
    assert sorted(names) == sorted(set(names))
