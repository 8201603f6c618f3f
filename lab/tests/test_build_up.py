"""The study of optimizers whose steps grow: what its rows say, and that it leaves the zoo's optimizers as they are."""

import pytest

from autolr_lab.studies import build_up
from autolr_lab.studies.build_up import GROWING, PACKED, TASKS, pair_of, run, tables, told
from autolr_lab.zoo import short_runs
from autolr_lab.zoo.optimizers import OPTIMIZERS
from autolr_lab.zoo.registry import BY_NAME, LEARN
from autolr_lab.zoo.store import Store, unpack


@pytest.fixture(scope="module")
def cells():
    return list(told(unpack(PACKED)))


def test_the_kept_rows_are_those_of_the_study(cells):
    assert {cell.task for cell in cells} == set(TASKS)
    assert {cell.optimizer for cell in cells} == set(GROWING)
    assert {cell.steps for cell in cells} <= {steps for name in TASKS for steps in BY_NAME[name].horizons}
    assert 10 < len(set(TASKS) & LEARN) < len(TASKS) - 10


def test_the_allowance_is_near_to_how_far_short_runs_are_off_at_a_momentum_of_099(cells):
    # A prediction from 0.99 and two schedules, beside what whole grids of runs show.
    for length in build_up.LENGTHS:
        some = [cell for cell in cells if (cell.optimizer, cell.length) == ("momentum-0.99", length)]
        predicted = sum(cell.alone - cell.allowed for cell in some) / len(some)
        seen = sum(cell.alone - cell.best for cell in some) / len(some)
        assert predicted == pytest.approx(seen, abs=0.75)


def test_a_line_tells_each_optimizer_side_and_length(cells):
    lines = tables(unpack(PACKED))["build-up"].splitlines()
    assert len(lines) == 2 + 2 * 2 * len(GROWING)
    line = next(line for line in lines if line.startswith("| momentum-0.99 | kept apart | 20 steps |")).split(" | ")
    some = [
        cell for cell in cells
        if (cell.optimizer, cell.length) == ("momentum-0.99", 20) and cell.task not in LEARN
    ]  # fmt: skip
    tasks = sorted({cell.task for cell in some})
    assert line[3] == f"{len(some)} ({len(tasks)})"
    regrets = [[c.regret_alone - c.regret_allowed for c in some if c.task == task] for task in tasks]
    assert float(line[8]) == pytest.approx(sum(sum(r) / len(r) for r in regrets) / len(tasks), abs=0.006)
    low, high = map(float, line[9].split(" to "))
    assert 0 < low < float(line[8]) < high  # surely better, on tasks of which nothing was learned


def test_a_run_is_kept_and_what_it_trains_with_is_gone_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(build_up, "LENGTHS", (3,))
    asked = []

    def stop(store, pair, seed):
        asked.append((pair.name, pair.customary, seed, "radam" in OPTIMIZERS))
        raise KeyboardInterrupt

    monkeypatch.setattr(build_up, "grid", stop)
    store = Store(tmp_path / "rows.jsonl")
    with pytest.raises(KeyboardInterrupt):
        run(store, "digits-softmax", "radam")
    assert asked == [("digits-softmax/radam", BY_NAME["digits-softmax"].rates["adamw"], 0, True)]
    assert "radam" not in OPTIMIZERS
    assert "radam" not in BY_NAME["digits-softmax"].rates
    assert {row.steps for row in Store(tmp_path / "rows.jsonl").rows.values()} == {3}
    assert short_runs.LENGTHS == (5, 10, 20, 40, 80, 160)
    assert pair_of("wine-mlp", "momentum-0.99").customary == BY_NAME["wine-mlp"].rates["momentum"] / 8
