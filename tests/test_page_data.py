"""What is thinned and fitted for the page is true to what was logged."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolr.numerics.bracket import ShortRun, bottom
from autolr.report.page_data import data_of
from autolr.report.search_data import bottoms_of, ends_of, parabola
from autolr.report.thinning import AT_MOST, thinned
from autolr.report.training_record import Training
from report_inputs import a_probe, a_record, a_search

VALUES = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=400)


@given(VALUES, st.integers(10, 60))
def test_a_thinned_curve_has_the_ends_the_extremes_and_the_gaps(values, at_most):
    curve = list(enumerate(values))
    kept = thinned(curve, at_most)
    finite = [value for value in values if value is not None]
    assert set(kept) <= set(curve)
    assert [step for step, _ in kept] == sorted({step for step, _ in kept})
    assert len(kept) <= max(len(curve) if len(curve) <= at_most else 0, at_most + 5)
    assert (kept[0], kept[-1]) == (curve[0], curve[-1])
    if finite:
        told = [value for _, value in kept if value is not None]
        assert (min(told), max(told)) == (min(finite), max(finite))
    assert (None in values) == any(value is None for _, value in kept)


def test_a_spike_of_one_step_in_a_million_is_still_there():
    curve = [(step, 9.0 if step == 123_457 else 1.0) for step in range(1_000_000)]
    kept = thinned(curve)
    assert len(kept) <= AT_MOST
    assert (123_457, 9.0) in kept


def a_valley(lowest, diverging=()):
    """A search whose losses are a parabola in the log of the rate, about ``lowest`` octaves from the given rate."""
    start = [2.0, 2.1, 2.2, 2.3]
    above = {k: -1 + 0.05 * (k - lowest) ** 2 for k in (-4, -2, 0, 1, 2, 4)}
    runs = [
        {"length": 10, "lr": 0.01 * 2.0**k, "losses": [loss + rise for loss in start if k not in diverging]}
        for k, rise in above.items()
    ]
    return a_search(runs=runs, start_losses=start, given=0.01)


@pytest.mark.parametrize("lowest", [-1.3, 0.2, 0.9, 1.6])
def test_the_lowest_point_of_the_drawn_parabola_is_the_bottom_that_the_search_tells(lowest):
    search = a_valley(lowest)
    tried = {
        round(math.log2(run["lr"] / 0.01)): ShortRun(10, run["lr"], tuple(run["losses"]), 1.0) for run in search["runs"]
    }
    place = bottom(tried, tuple(search["start_losses"])).place
    drawn = parabola(search, 10)
    rate, loss = min(drawn, key=lambda point: point[1])
    step = math.log2(drawn[1][0] / drawn[0][0])
    assert math.log2(rate / 0.01) == pytest.approx(place, abs=step)
    assert loss == pytest.approx(2.15 - 1, abs=0.02)


def test_the_drawn_parabola_goes_through_the_short_runs():
    search = a_valley(0.2)
    drawn = parabola(search, 10)
    (ends,) = ends_of(search).values()
    losses = {round(math.log2(rate / 0.01)): loss for rate, loss in ends}
    for rate, loss in (drawn[0], drawn[-1]):
        assert loss == pytest.approx(losses[round(math.log2(rate / 0.01))])


def test_no_parabola_is_drawn_where_nothing_gained_or_a_neighbour_is_missing():
    assert parabola(a_valley(9.0), 10) is None, "the best is the highest rate"
    worse = [{"length": 10, "lr": lr, "losses": [3.0, 3.1]} for lr in (0.01, 0.02, 0.04)]
    assert parabola(a_search(runs=worse), 10) is None
    assert parabola(a_search(start_losses=[]), 10) is None
    assert parabola(a_search(runs=[{"length": 10, "lr": 0.01, "losses": [None]}]), 10) is None


def test_a_run_that_diverged_bounds_the_parabola_at_the_loss_of_the_start():
    drawn = parabola(a_valley(0.2, diverging=(1, 2, 4)), 10)
    assert drawn[-1] == (pytest.approx(0.02), pytest.approx(2.15))


def test_the_bottoms_are_rates_with_one_standard_error_to_either_side():
    search = a_search(given=0.01, bottoms=[{"length": 10, "place": 1.0, "stderr": 2.0, "share": 0.1}])
    assert bottoms_of(search) == {10: (pytest.approx(0.02), pytest.approx(0.005), pytest.approx(0.08))}
    assert bottoms_of(a_search()) == {}


def test_twenty_long_runs_with_decisions_are_small():
    def run(seed):
        points = [
            {"step": k, "lr": 0.1 / (1 + k * seed % 7), "loss": 2.0 + math.sin(k * seed) / 3} for k in range(1, 2_501)
        ] + [{"step": k, "test_loss": 1 / (1 + k)} for k in range(50, 2_500, 50)]  # fmt: skip
        records = [a_probe(100 * k, to=0.12) if k % 2 else a_record(100 * k) for k in range(1, 100)]
        return Training(f"run {seed}", records, points, 10_000, times=[(k, k * 0.37) for k in range(2_500)])

    told = json.dumps(data_of([run(seed) for seed in range(1, 21)]), separators=(",", ":"))
    assert len(told) < 2_000_000, "3 MB are the page's, and Vega takes 0.9 of them"
