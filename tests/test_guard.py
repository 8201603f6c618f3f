"""What a run's guard asks and decides, by numbers alone: whether the run gets further than its short runs."""

from __future__ import annotations

import dataclasses
import math

import pytest

import autolr
from autolr.policies.base import Decision, ProbeRequest, ProbeResult, Progress, Run, Search, Trigger
from autolr.policies.dead_units import Suspicion
from autolr.policies.divergence import is_stuck
from autolr.policies.guard import LONGER, ShortRuns
from autolr.policies.peak_search import PeakSearchState
from autolr.policies.wording import explain

STEPS, SHORT = 800, 15
START, UNIGRAMS, LEARNED = (9.2, 9.1, 9.3, 9.2), (6.1, 6.0, 6.2, 6.1), (4.1, 4.0, 4.2, 4.1)
AWAITED = LONGER * SHORT
SHORT_RUNS = ShortRuns(9.2, 6.3, SHORT)
POLICY = autolr.PeakSearch(peak=0.006, short_runs=SHORT_RUNS)


class Played:
    """A run of losses alone: ``losses(step)`` in it, ``here`` and ``there`` after a trial's steps."""

    def __init__(self, losses, there=(), policy=POLICY, steps=STEPS, here=()):
        self.losses, self.here, self.there, self.policy, self.run = losses, here, there, policy, Run(steps)
        self.state: PeakSearchState = policy.begin(self.run)
        self.asked: list[tuple[int, ProbeRequest]] = []
        self.decided: list[tuple[int, Decision]] = []
        self.saved: list[int] = []  # steps at which a place was saved

    def __call__(self, first, last):
        for step in range(first, last + 1):
            now = Progress(self.run, step, 0.006)
            while (request := self.policy.check(self.state, now)) is not None:
                self.asked.append((step, request))
                if request.snapshot:
                    self.saved.append(step)
                rows = (self.losses(step),) * (request.minibatches > 0)
                if request.kind == "from snapshot":
                    rows = (self.here or self.losses(step), self.there)
                elif request.kind == "at snapshot":
                    rows = (self.losses(self.saved[-1]),)
                self.state, decision = self.policy.decide(self.state, ProbeResult(request, now, (rows,)))
                if decision is not None:
                    self.decided.append((step, decision))
        return self

    def of(self, trigger):
        return [(step, decision) for step, decision in self.decided if decision.trigger == trigger]

    @property
    def compared(self):
        return [(step, request) for step, request in self.asked if request.kind == "from snapshot"]


def stuck(step):
    return UNIGRAMS if step else START


def test_a_run_that_stands_where_its_short_run_ended_goes_back_to_the_start_if_a_lower_peak_gets_further():
    run = Played(stuck, LEARNED)(0, AWAITED)
    ((step, request),) = run.compared
    assert step == AWAITED
    # The rates that the run has had, a ninth of each; then down to zero, as from here.
    had = [POLICY.rate(POLICY.begin(run.run), Progress(run.run, taken, 0.0)) for taken in range(AWAITED)]
    down = [0.006 * left / (SHORT + 1) for left in range(SHORT, 0, -1)]
    assert request.from_here == pytest.approx(down)
    assert request.from_there == pytest.approx([rate / 9 for rate in had + down])
    ((step, decision),) = run.of(Trigger.TOO_HIGH)
    assert (step, decision.verdict) == (AWAITED, "roll back")
    assert decision.lr == pytest.approx(0.006 / 9)
    assert run.saved == [0]  # where it goes back to
    told = explain(dataclasses.replace(decision, numbers={**decision.numbers, "steps": 120.0}), 0.006, "hold")
    assert "after 120 steps it stood hardly lower" in told
    assert "the loss is 6.1 from here, and 4.1 after as many steps from the start with a lower peak" in told
    assert decision.to_kept
    assert request.keep_after == AWAITED  # before the rate comes down: the run goes on from those steps
    after = Progress(run.run, AWAITED, 0.0)
    assert POLICY.rate(run.state, after) == pytest.approx(0.006 / 9)  # without another climb


def test_a_twentieth_of_the_short_runs_gain_is_enough():
    assert SHORT_RUNS.gained / 20 == pytest.approx(0.145)
    assert Played(stuck, tuple(loss - 0.15 for loss in UNIGRAMS))(0, AWAITED).of(Trigger.TOO_HIGH)


def test_units_that_are_suspected_in_the_steps_undone_are_not_where_the_run_goes_on():
    run = Played(stuck, LEARNED)(0, AWAITED - 1)
    units = dataclasses.replace(run.state.guard.units, suspects=(0,), looks=9)
    run.state = dataclasses.replace(run.state, guard=dataclasses.replace(run.state.guard, units=units))
    run(AWAITED, AWAITED)
    assert run.of(Trigger.TOO_HIGH)
    looks = [request for step, request in run.asked if step == AWAITED and request.kind == "here"]
    assert [request.minibatches for request in looks] == [4]  # the check, and no look at gradients that are undone
    assert not run.state.guard.units.suspects


def test_a_run_that_diverges_as_it_is_brought_down_goes_back_if_the_lower_peak_does_not():
    run = Played(stuck, LEARNED, here=(math.inf,) * 4)(0, AWAITED)
    ((_, decision),) = run.of(Trigger.TOO_HIGH)
    assert decision.evidence.loss == pytest.approx(6.1)  # where the run is, not where it was brought
    assert decision.numbers["here"] == math.inf
    assert Played(stuck, (math.inf,) * 4, here=(math.inf,) * 4)(0, AWAITED).of(Trigger.STANDS)


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (UNIGRAMS, "no lower"),
        (START, "higher"),
        ((6.2, 4.0, 7.5, 6.0), "within noise"),
        ((math.inf,) * 4, "diverged"),
        (tuple(loss - 0.14 for loss in UNIGRAMS), "surely, and by less than a twentieth of the short run's gain"),
    ],
)
def test_it_goes_on_where_a_lower_peak_gets_no_further(there, why):
    run = Played(stuck, there)(0, STEPS - 1)
    assert len(run.compared) == 1, why  # once and for all
    ((_, decision),) = run.of(Trigger.STANDS)
    assert decision.verdict == "keep"
    assert run.state.guard.lowerings == 0
    assert "the peak is not too high: " in (told := explain(decision, 0.006, "hold"))
    assert told.endswith("not surely lower by a twentieth of the short run's gain")
    assert run.saved[1] == AWAITED  # the start is wanted no longer


@pytest.mark.parametrize(
    ("told", "policy", "losses", "steps"),
    [
        ("it got further", POLICY, lambda step: LEARNED if step else START, STEPS),
        ("too few steps would be left", POLICY, stuck, 3 * AWAITED),
        ("nothing was searched", autolr.PeakSearch(peak=0.006), stuck, STEPS),
        ("no guard", autolr.PeakSearch(peak=0.006, short_runs=SHORT_RUNS, guard=False), stuck, STEPS),
    ],
)
def test_nothing_is_tried_where(told, policy, losses, steps):
    assert not Played(losses, LEARNED, policy, steps)(0, steps - 1).compared, told


def test_a_run_that_diverges_before_comes_back_to_the_start_and_is_given_as_many_steps_again():
    policy = dataclasses.replace(POLICY, short_runs=dataclasses.replace(SHORT_RUNS, steps=40))
    run = Played(lambda step: (math.nan,) * 4 if step == 160 else stuck(step), LEARNED, policy, 1600)(0, 480)
    ((step, decision),) = run.of(Trigger.DIVERGED)
    assert (step, decision.lr) == (160, pytest.approx(0.002))
    assert run.saved == [0]
    assert [(step, len(request.from_there)) for step, request in run.compared] == [(160 + 320, 320 + 40)]


def test_a_look_out_of_turn_brings_nothing_back_and_the_next_one_in_turn_compares():
    run = Played(lambda step: (9.4,) * 4 if step == AWAITED else stuck(step), LEARNED, steps=2 * STEPS)(0, 160)
    assert not run.of(Trigger.DIVERGED)
    assert [step for step, _ in run.compared] == [160]  # of ten checks of 1,600 steps the first


def test_where_no_place_could_be_saved_there_is_none_to_go_back_to():
    """As where memory ran out: the next place that is good is saved, and nothing is compared with it."""
    policy = dataclasses.replace(POLICY, short_runs=dataclasses.replace(SHORT_RUNS, steps=40))
    run = Played(stuck, LEARNED, policy, 1600)(0, 0)
    run.saved.clear()
    run.state = dataclasses.replace(run.state, guard=dataclasses.replace(run.state.guard, saved=()))
    lost = dataclasses.replace(run.state.guard, units=Suspicion(suspects=(0,), looks=9))
    spent = ProbeResult(ProbeRequest("here"), Progress(run.run, 9, 0.006), without_gradient=(0,))
    assert lost.seen(spent, decaying=False)[0].charge is None
    run.losses = lambda step: (math.nan,) * 4 if step < 200 else stuck(step)
    run(1, 330)
    assert not run.of(Trigger.DIVERGED)
    assert not run.compared
    assert run.saved == [320]


def test_a_place_is_saved_at_once_where_the_start_could_not_be():
    policy = dataclasses.replace(POLICY, short_runs=dataclasses.replace(SHORT_RUNS, steps=40))
    run = Played(stuck, LEARNED, policy, 1600)(0, 0)
    run.saved.clear()
    run.state = dataclasses.replace(run.state, guard=dataclasses.replace(run.state.guard, saved=()))
    assert run(1, 160).saved == [160]
    assert not run(161, 400).compared  # it is not the start


def test_after_other_groups_another_length_or_a_failed_measurement_nothing_is_awaited():
    """The saved place may be no start then, and the rates others than the run has had."""
    run = Played(stuck, LEARNED)(0, 60)
    run.state = POLICY.reset(run.state)
    assert not run(61, STEPS - 1).compared


def test_no_lower_peak_is_tried_than_the_run_may_go_back_with():
    state = POLICY.begin(Run(STEPS))
    for lowerings, awaited in ((0, AWAITED), (3, AWAITED), (4, 0), (5, 0)):
        guard = dataclasses.replace(state.guard, lowerings=lowerings)
        assert guard._awaiting(Progress(Run(STEPS), 0, 0.1)).awaited == awaited


def test_nothing_is_tried_in_a_run_that_is_to_end():
    run = Played(stuck, LEARNED)(0, 60)
    run.state = POLICY.cooldown(run.state, Progress(run.run, 60, 0.006), 200)
    assert not run(61, STEPS - 1).compared


def test_after_it_went_back_its_best_is_the_start_again():
    """Where the run goes on the rate is up, and the loss may stand above what is undone: that is no divergence."""
    run = Played(stuck, LEARNED)(0, AWAITED)
    assert run.of(Trigger.TOO_HIGH)
    run.losses = lambda _: tuple(loss - 1.5 for loss in START)  # less than half of what it had gained
    run(AWAITED + 1, STEPS - 1)
    assert not run.of(Trigger.DIVERGED)
    assert len(run.of(Trigger.TOO_HIGH)) == 1


def test_the_state_goes_through_a_checkpoint_at_any_moment():
    run = Played(stuck, LEARNED)
    for step in range(AWAITED + 40):
        run(step, step)
        kept = dataclasses.asdict(run.state)
        assert POLICY.restore(kept) == run.state
    guard = dataclasses.replace(run.state.guard, charge=Trigger.DIED)
    kept = dataclasses.asdict(dataclasses.replace(run.state, guard=guard))
    kept["guard"]["charge"] = "died"  # as it comes from a file
    assert POLICY.restore(kept).guard.charge is Trigger.DIED


@pytest.mark.parametrize(
    ("began", "ended", "now", "expected"),
    [
        (9.2, 6.3, 6.0, True),
        (9.2, 6.3, 5.6, False),
        (4.6, 3.15, 5.6, False),  # judged by minibatches of half the loss: shares count
        (4.6, 3.15, 6.0, True),
        (9.2, 0.1, 0.2, True),
        (9.2, 0.1, 0.05, False),  # nine tenths of what was left
        (2.3, -2.3, -6.0, True),  # below 0 nothing is known of what is left
        (2.3, -2.3, -9.5, False),
    ],
)
def test_stuck_is_who_gains_less_than_a_tenth_of_what_the_short_run_left(began, ended, now, expected):
    assert is_stuck((9.2,) * 4, (now,) * 4, began, ended) is expected


def test_a_search_tells_the_guard_what_its_short_runs_came_to():
    found = Search(0.006, 0.001, 0.02, 9.2, 6.3, 300, found=True, details={"runs": [{"length": 15}, {"length": 4}]})
    assert ShortRuns.of(found) == SHORT_RUNS
    assert ShortRuns.of(dataclasses.replace(found, found=False)) is None
    assert ShortRuns.of(dataclasses.replace(found, best_loss=math.nan)) is None
    policy = autolr.PeakSearch()
    state, _ = policy.decide(
        policy.begin(Run(STEPS)), ProbeResult(ProbeRequest("search"), Progress(Run(STEPS), 0, 0.1), search=found)
    )
    assert state.guard == POLICY.begin(Run(STEPS)).guard


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"start": math.nan}, ValueError), ({"best": "low"}, TypeError), ({"steps": 0}, ValueError)],
)
def test_short_runs_that_cannot_be_are_refused(settings, error):
    with pytest.raises(error, match=next(iter(settings))):
        dataclasses.replace(SHORT_RUNS, **settings)


def test_other_things_than_short_runs_are_refused():
    with pytest.raises(TypeError, match=r"short_runs comes with a searched peak, from Peak.policy\(\)"):
        autolr.PeakSearch(peak=0.1, short_runs=(9.2, 6.3, 15))
