"""The words of a decision: its trigger and numbers, in one sentence. Nothing is decided on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from autolr.policies.base import Decision, Trigger

T = Trigger
DONE = {"raise": "raised", "lower": "lowered"}


def number(value: float, *, signed: bool = False) -> str:
    """A learning rate or loss as a reader wants it in a sentence: three digits, no trailing zeros."""
    return f"{value:+.3g}" if signed else f"{value:.3g}"


def numbers(before: float, after: float) -> tuple[str, str]:
    """Two that differ, with as many digits as it takes to see it."""
    pairs = ((f"{before:.{digits}g}", f"{after:.{digits}g}") for digits in range(3, 18))
    return next((a, b) for a, b in pairs if a != b)


def explain(decision: Decision, lr: float, phase: str) -> str:
    """What was done and why.

    Args:
        decision: to be put into words.
        lr: before it.
        phase: of the policy, when the decision was taken.
    """
    n = decision.numbers
    if decision.verdict == "roll back":
        what = f"peak {number(n['peak'])}" if "peak" in n else f"LR {number(lr)}"
        head = f"rolled back {n.get('steps', 0):.0f} steps, {what} to {number(decision.lr)}"
    elif "unpaid" in n:
        head = f"to be undone: {n['steps']:.0f} steps, LR {number(lr)} to {number(decision.lr)}"
    elif decision.verdict in DONE and decision.lr != lr:
        before, after = numbers(lr, decision.lr)
        head = f"LR {DONE[decision.verdict]} from {before} to {after}"
    else:
        head = f"LR kept at {number(decision.lr)}"
    parts = [_because(decision, phase), _words(decision.trigger, n), _held(n)]
    told = f"{head}: " + ", and ".join(part for part in parts[:2] if part) + parts[2]
    if "unpaid" in n:
        told += f"; only the LR is: overhead={n['unpaid']:g} does not pay for undoing steps here"
    return told


def name_of(trigger: Trigger | str) -> str:
    """As a record has it."""
    return trigger.value if isinstance(trigger, Trigger) else trigger


def _words(trigger: Trigger | str, n: Mapping[str, float]) -> str:
    if not isinstance(trigger, Trigger):
        return trigger
    try:
        return WORDS[trigger](n)
    except KeyError as error:
        raise ValueError(
            f"A Decision with {trigger} needs numbers={{{error}: ...}}, of which its words tell; got {dict(n)}. A text "
            "in place of the trigger is a reason of your own."
        ) from None


def _because(decision: Decision, phase: str) -> str:
    """Why it was probed; a probe begun in explore may end in exploit."""
    if decision.because is None:
        return ""
    if decision.because is T.EXPLORING:
        return "exploring" if phase == "explore" else "exploiting by now"
    return WORDS[decision.because](decision.numbers) if decision.because is T.SATURATED else decision.because.value


def _held(n: Mapping[str, float]) -> str:
    if "held" not in n:
        return ""
    name = f"factor {number(n['factor'])}" if "factor" in n else "the epsilon threshold"
    return f", held to {number(n['held'], signed=True)} of the LR by {name}"


def _asked(n: Mapping[str, float]) -> str:
    if "asked" not in n:
        asked = "no minimum in sight"
    else:
        asked = number(n["asked"], signed=True)
        asked += f" +- {number(n['stderr'])}" if "stderr" in n else ""
        asked += " of the LR"
    return f"{asked} over {n['observations']:.0f} observations" if "observations" in n else asked


def _not_saturated(n: Mapping[str, float]) -> str:
    return f"not saturated ({_against(n)})"


def _against(n: Mapping[str, float]) -> str:
    against = f"threshold {number(n['threshold'])}" if "threshold" in n else f"{number(n['began'])} when this LR began"
    return f"loss-drop rate {number(n['rate'])} a step, {against}"


def _rose(n: Mapping[str, float]) -> str:
    told = f"the loss rose by {number(n['rise'])} to {number(n['end'])}, "
    told += f"noise {number(n['noise'])}" if "noise" in n else "nearly to where the run began"
    if "rate_before" in n:
        told += f", and the loss-drop rate fell from {number(n['rate_before'])} to {number(n['rate'])} a step"
    return told


def _not_finite(n: Mapping[str, float]) -> str:
    return f"the loss went from {number(n['start'])} to {n['end']}" if "start" in n else f"the loss is {n['end']}"


def _peak_found(n: Mapping[str, float]) -> str:
    found = f"peak {number(n['peak'])} ({number(n['low'])} to {number(n['high'])})"
    return f"{found}, found in {n['runs']:.0f} short runs, {100 * n['share']:.1f} % of the run's cost"


def _no_peak(n: Mapping[str, float]) -> str:
    runs = "1 short run tells" if n["runs"] == 1 else f"{n['runs']:.0f} short runs tell"
    why = f"{runs} too little" if n["runs"] else "the budget pays for no short run"
    return f"{why}: the peak {number(n['peak'])} is a guess, or the rate that was given"


def _diverged(n: Mapping[str, float]) -> str:
    told = f"it diverged: the loss is {number(n['loss'])} after {number(n['best'])}, {number(n['start'])} at the start"
    if not math.isfinite(n["loss"]):
        return told
    lacks = n.get("floor", 0.0) > max(0.0, n["start"] - n["best"])
    if lacks and n["loss"] <= n["start"] + abs(n["start"]) / 2:
        return f"{told}: it has gained less than half of the {number(n['floor'])} that the best short run did"
    return told + (", far above it" if n["loss"] > n["start"] else ": more than half of the improvement is lost")


def _healthy(n: Mapping[str, float]) -> str:
    told = f"no divergence: the loss is {number(n['loss'])}"
    if n.get("stuck"):
        told += (
            ", hardly lower than the best short run ended: the peak is too high for a run so long, or nothing is left "
            "to gain"
        )
    return told


def _died(n: Mapping[str, float]) -> str:
    return (
        f"units died: {n['dead']:.0f} of the parameters have no gradient any more, and the loss is {number(n['loss'])} "
        f"after {number(n['start'])} at the start"
    )


def _stands(n: Mapping[str, float]) -> str:
    return (
        f"after {n['age']:.0f} steps it stood hardly lower than after the best short run of {n['length']:.0f} or fewer "
        f"({number(n['short'])}); with the rate brought down to zero the loss is {number(n['here'])} from here, and "
        f"{number(n['there'])} after as many steps from the start with a lower peak"
    )


WORDS: Mapping[Trigger, Callable[[Mapping[str, float]], str]] = {
    T.EXPLORING: lambda _: "every window of the explore phase ends with a probe",
    T.MONITORING: lambda _: "every window ends with a probe",
    T.SATURATED: lambda n: f"saturated ({_against(n)})",
    T.NOT_SATURATED: _not_saturated,
    T.LOSS_NOT_FINITE: _not_finite,
    T.LOSS_ROSE: _rose,
    T.RATE_FELL: lambda n: (
        f"the loss-drop rate fell from {number(n['rate_before'])} to {number(n['rate'])} a step after the change"
    ),
    T.COLLAPSED: _rose,
    T.SAMPLE_NOT_FINITE: lambda _: "a sampled loss is not finite",
    T.NO_MINIMUM: lambda _: "the fit has no minimum",
    T.FIT_ASKS: lambda n: f"the fit asks for {_asked(n)}",
    T.DECREASE_REFUSED: lambda n: f"the fit {'surely ' * ('observations' in n)}asks for a decrease ({_asked(n)})",
    T.SURELY_MORE: lambda n: f"the fit surely asks for more: {_asked(n)}",
    T.SURELY_LESS: lambda n: f"the fit surely asks for less: {_asked(n)}",
    T.NOT_SURELY_MORE: lambda n: f"the fit does not surely ask for more: {_asked(n)}",
    T.NO_RISE: lambda n: f"the fit sees no rise worth making: {_asked(n)}",
    T.NO_CHANGE: lambda n: f"the fit surely asks for no change worth making: {_asked(n)}",
    T.NO_ROOM: lambda n: (
        f"the loss is {number(n['loss'])}, and the epsilon threshold (eq. 3) lets no rate change unless the loss is "
        "above 0: add a constant to it, or take PeakSearch, which compares losses"
    ),
    T.AT_FLOOR: lambda n: (
        f"it is at its floor, {number(n['floor'])} of the highest LR so far, {number(n['highest'])}: the run has "
        "nothing more to gain from a lower one"
    ),
    T.UNDECIDED: lambda n: f"the fit is undecided: {_asked(n)}",
    T.RUN_ENDED: lambda _: "the run ended before a verdict",
    T.PEAK_FOUND: _peak_found,
    T.NO_PEAK: _no_peak,
    T.HEALTHY: _healthy,
    T.DIVERGED: _diverged,
    T.DIED: _died,
    T.TOO_HIGH: lambda n: f"the peak is too high: {_stands(n)}: the run goes on from those",
    T.STANDS: lambda n: (
        f"the peak is not too high: {_stands(n)}, not surely lower by a twentieth of the short run's gain"
    ),
    T.OBJECTIVE_CHANGED: lambda n: (
        f"the loss is {number(n['loss'])}, and {number(n['there'])} at the last good place too: the objective changed"
    ),
    T.OTHER_DATA: lambda n: (
        f"the loss is {number(n['loss'])}, of another number of minibatches than before: judged from here on"
    ),
    T.LOST: lambda _: (
        "the loss is not finite, nor is it at the last good place: something that going back does not bring back (an "
        "average of the weights, a state that a module keeps between calls) is not finite; set it anew, or load a "
        "checkpoint"
    ),
}
