"""What AutoLR costs, in the currency of the paper's appendix C."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolr.numerics import cost as cost_module
from autolr.numerics.cost import Cost, affordable_superbatch

counts = st.integers(0, 10**6)
spent = st.builds(
    Cost, first=counts, probes=counts, drop_rate=counts, validation=counts, divergence=counts, search=counts,
    snapshots=counts, discarded_steps=counts,
)  # fmt: skip


def test_the_papers_probe_every_1000_steps_costs_a_sixth_of_training():
    # Appendix C: 5 samples of 100 minibatches are 500 forwards, 1,000 steps are 3,000.
    assert affordable_superbatch(window=1000, samples=5) == 100
    assert Cost(probes=500).share(steps=1000) == pytest.approx(1 / 6)


@given(window=st.integers(1, 10**6), samples=st.integers(3, 50))
def test_the_affordable_superbatch_is_the_largest_whose_probes_cost_a_sixth_at_most(window, samples):
    size = affordable_superbatch(window, samples)
    assert size >= 1  # a probe needs a minibatch, also where a sixth does not pay for one
    assert size == 1 or 6 * samples * size <= 3 * window
    assert 6 * samples * (size + 1) > 3 * window


@given(cost=spent, more=st.integers(1, 100), part=st.sampled_from([f.name for f in dataclasses.fields(Cost)]))
def test_everything_that_is_spent_counts_once_and_a_discarded_step_three_times(cost, more, part):
    dearer = dataclasses.replace(cost, **{part: getattr(cost, part) + more})
    rise = 0 if part.endswith("_seconds") else 3 * more if part == "discarded_steps" else more
    assert dearer.forward_equivalents - cost.forward_equivalents == rise


@given(cost=spent, steps=st.integers(1, 10**6))
def test_the_share_is_of_three_forwards_a_training_step(cost, steps):
    assert cost.share(steps) == pytest.approx(cost.forward_equivalents / (3 * steps))
    assert cost.share(2 * steps) == pytest.approx(cost.share(steps) / 2)


def test_before_the_first_step_there_is_no_share():
    assert Cost(probes=10).share(steps=0) == 0


@pytest.fixture
def clock(monkeypatch):
    """A clock that reads what the test sets."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(cost_module.time, "perf_counter", lambda: Clock.now)
    return Clock


@pytest.mark.parametrize("part", ["probes", "drop_rate", "validation", "divergence", "search", "snapshots"])
def test_seconds_add_up_under_the_part_they_were_spent_on(clock, part):
    cost = Cost()
    for seconds in (2.0, 0.5):
        with cost.timing(part):
            clock.now += seconds
        clock.now += 1000  # training's own time
    assert cost.to_dict() == Cost().to_dict() | {f"{part}_seconds": 2.5}
    assert cost.seconds == 2.5


def test_seconds_count_also_when_what_was_timed_failed(clock):
    cost = Cost()

    def fail():
        clock.now += 3
        raise RuntimeError

    with pytest.raises(RuntimeError), cost.timing("probes"):
        fail()
    assert cost.probes_seconds == 3


def test_all_parts_of_the_time_are_in_the_sum():
    seconds = [f.name for f in dataclasses.fields(Cost) if f.name.endswith("_seconds")]
    for n, name in enumerate(seconds):
        assert Cost(**{name: 2.0**n}).seconds == 2.0**n
    assert Cost(**dict.fromkeys(seconds, 1.0)).seconds == len(seconds)


@given(cost=spent)
def test_it_goes_into_a_checkpoint_and_back(cost):
    assert Cost(**json.loads(json.dumps(cost.to_dict(), allow_nan=False))) == cost
