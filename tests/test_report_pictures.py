"""The pictures show what was logged."""

import dataclasses

import pytest
from matplotlib.colors import to_hex

from autolr.report import Training
from autolr.report.curves import draw_curves
from autolr.report.drawing import BLUE, GREEN, ORANGE, PURPLE, RED, new_figure, to_png
from autolr.report.fits import choose, draw_fits
from autolr.report.search import draw_search_on
from report_inputs import HOSTILE, a_found_peak, a_probe, a_record, a_search, some_points


def marked(axes, colour, marker):
    """The points that are drawn in a colour with a marker."""
    lines = [line for line in axes.lines if to_hex(line.get_color()) == colour and line.get_marker() == marker]
    return [(float(x), float(y)) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def draw_search(search):
    figure = new_figure(1, 1)
    draw_search_on(figure.subplots(), search)
    return figure


def test_decisions_are_marked_on_the_rate_by_shape():
    records = [
        a_found_peak(), a_record(10), a_record(20, to=0.2), a_record(30, 0.2, to=0.1),
        a_record(40, 0.1, to=0.05, verdict="roll back", phase="exploit"),
    ]  # fmt: skip
    figure = draw_curves([Training("run", records)])
    (axes,) = figure.axes
    found = {
        marker: marked(axes, to_hex(c), marker)
        for marker, c in zip("*^vX.", (GREEN, "#333333", "#333333", RED, "#888888"), strict=True)
    }
    assert found == {"*": [(0, 0.003)], "^": [(20, 0.2)], "v": [(30, 0.1)], "X": [(40, 0.1)], ".": [(10, 0.1)]}
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [10, 40]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["run", "peak found", "raised", "lowered", "rolled back", "kept", "search → explore → exploit"]


def test_the_rate_jumps_where_it_was_decided_between_logged_steps():
    training = Training("run", [a_record(25, 0.1, to=0.3)], [{"step": 20, "lr": 0.1}, {"step": 30, "lr": 0.3}])
    assert training.rates() == [(20, 0.1), (25, 0.1), (25, 0.3), (30, 0.3)]


def test_a_peak_that_was_found_is_no_jump_of_the_rate_since_the_warm_up_begins_below_it():
    assert Training("run", [a_found_peak(), a_record(50, 0.003)]).rates() == [(50, 0.003), (50, 0.003)]


def test_each_loss_and_metric_has_a_panel_and_the_loss_of_steps_lies_behind_its_mean():
    axes = draw_curves([Training("run", [], some_points())]).axes
    assert [a.get_title(loc="left") for a in axes] == ["learning rate", "train loss", "test loss", "test accuracy"]
    thin, bold = axes[1].lines
    assert thin.get_xdata().tolist() == [10, 30, 50]
    assert bold.get_xdata().tolist() == [20, 40, 60]
    assert thin.get_linewidth() < bold.get_linewidth()
    assert axes[-1].get_xlabel() == "optimizer steps"


def test_trainings_of_one_name_share_a_colour_and_the_tuned_one_is_blue():
    figure = draw_curves([Training("fixed", [], some_points())] + [Training("autolr", [a_record()])] * 2)
    drawn = [to_hex(line.get_color()) for line in figure.axes[0].lines if line.get_linewidth() == 1.6]
    assert drawn == [ORANGE, BLUE, BLUE]
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == ["fixed", "autolr"]


def test_nineteen_trainings_have_lines_that_differ():
    figure = draw_curves([Training(str(k), [a_record()]) for k in range(19)])
    drawn = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines if line.get_linewidth() == 1.6}
    assert len(drawn) == 19


@pytest.mark.parametrize(
    ("rates", "scale"),
    [
        pytest.param([0.1 * min(k / 5, (101 - k) / 50, 1) for k in range(1, 101)], "linear", id="schedule"),
        pytest.param([1e-3 * 2 ** (k // 10) for k in range(1, 101)], "log", id="decades"),
    ],
)
def test_a_schedule_that_ends_at_zero_has_a_plain_axis_and_decades_have_a_logarithmic_one(rates, scale):
    training = Training("run", [], [{"step": k, "lr": lr} for k, lr in enumerate(rates, 1)])
    assert draw_curves([training]).axes[0].get_yscale() == scale


def test_a_probe_shows_its_samples_those_kept_from_the_fit_and_its_minimum():
    probe = a_probe(to=0.12)
    axes = draw_fits([probe]).axes[0]
    assert marked(axes, ORANGE, "^") == list(zip(probe.eps, probe.losses, strict=True))
    assert marked(axes, GREEN, "s") == list(zip(probe.validation_eps, probe.validation_losses, strict=True))
    assert marked(axes, RED, "o") == [(0.2, pytest.approx(0.5))]
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"] == [pytest.approx(0.2)]
    assert axes.get_title() == "step 10, LR 0.1: raised\nminimum at +0.2"


def test_the_true_loss_at_the_minimum_is_drawn_apart_from_the_other_samples_kept_from_the_fit():
    probe = dataclasses.replace(a_probe(), validation_eps=(0.1, 0.2), validation_losses=(0.7, 0.6))
    figure = draw_fits([probe])
    assert probe.eps_min == 0.2
    assert marked(figure.axes[0], PURPLE, "^") == [(0.2, 0.6)]
    assert marked(figure.axes[0], GREEN, "s") == [(0.1, 0.7)]
    assert "true loss at the minimum" in {text.get_text() for text in figure.legends[0].get_texts()}
    assert "true loss" not in {text.get_text()[:9] for text in draw_fits([a_probe()]).legends[0].get_texts()}


def test_a_minimum_just_outside_is_drawn_and_one_far_outside_is_told():
    near, far = draw_fits([a_probe(eps_min=1.2), a_probe(eps_min=-40.0)]).axes
    assert [x for x, _ in marked(near, RED, "o")] == [1.2]
    assert marked(far, RED, "o") == []
    assert far.get_title().endswith("minimum at -40")
    assert far.get_xlim()[0] > -1


def test_at_most_nine_probes_are_drawn_from_the_first_to_the_last():
    chosen = choose([a_probe(step) for step in range(1, 31)])
    assert (len({probe.step for probe in chosen}), chosen[0].step, chosen[-1].step) == (9, 1, 30)
    assert sum(axes.axison for axes in draw_fits(chosen[:4]).axes) == 4


def test_the_search_shows_each_short_run_by_length_and_what_is_off_the_picture_at_its_edge():
    (axes,) = draw_search(a_search()).axes
    top = axes.get_ylim()[1]
    assert marked(axes, BLUE, "o") == [(0.001, 2.0), (0.004, 1.5), (0.016, pytest.approx(1.8))]
    assert marked(axes, ORANGE, "s") == [(0.002, pytest.approx(1.1))]
    assert marked(axes, BLUE, "^") == [(1.0, top)], "diverged"
    assert marked(axes, ORANGE, "^") == [(0.008, top)], "a loss of 800 would flatten all others"
    assert 2.3 < top < 4
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[:2] == ["runs of 10 steps", "runs of 40 steps"]
    assert "chosen peak 0.003" in texts
    (axes,) = draw_search(a_search(shortfall=2.0)).axes
    assert "chosen peak 0.003, 4 times lower: first steps are shorter" in [
        text.get_text() for text in axes.get_legend().get_texts()
    ]


def test_a_short_run_with_a_loss_that_is_not_finite_diverged():
    runs = [{"length": 10, "lr": lr, "losses": losses} for lr, losses in ((0.1, [1.0, 1.2]), (0.2, [1.0, None]))]
    (axes,) = draw_search(a_search(runs=runs)).axes
    assert marked(axes, BLUE, "o") == [(0.1, pytest.approx(1.1))]
    assert [rate for rate, _ in marked(axes, BLUE, "^")] == [0.2]


def test_the_runs_of_a_length_are_joined_in_the_order_of_their_rates():
    (axes,) = draw_search(a_search()).axes
    (curve,) = [line for line in axes.lines if line.get_color() == BLUE and line.get_linestyle() == "-"]
    assert list(curve.get_xdata()) == [0.001, 0.004, 0.016]


def test_a_name_is_drawn_as_it_is_and_is_no_mathematics():
    figure = draw_curves([Training(HOSTILE, [a_record()]), Training("_", [a_record(phase="$\\")]), Training("学", [])])
    assert to_png(figure)
