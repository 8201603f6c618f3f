"""The report: what it says must be what the runs logged, and it must say it for any run."""

from __future__ import annotations

import base64
import dataclasses
import math
import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from autolr.policies.base import Verdict
from autolr.report import write_report
from autolr.report.advice import draw_advice
from autolr.report.curves import TAIL, colours, draw_curves
from autolr.report.drawing import BLUE, DPI, GREEN, ORANGE, RED
from autolr.report.fits import choose, draw_fits, looks_of, remark
from autolr.report.groups import group_runs, run_names
from autolr.report.lines import Line, mean_line, measure, rate_line
from autolr.report.search import GREY, draw_search, search_of
from autolr.report.summary import DASH, NBSP, logged_forwards, mean_and_spread
from autolr_lab.training.runs import Run, RunError, Settings, read_run
from autolr.runtime.decision_log import Record
from autolr_lab.training.training import train

STEPS = 20  # an epoch


def a_look(step: int = 10, lr: float = 0.1, eps_min: float | None = 0.02, verdict: Verdict = "keep") -> Record:
    """A look at a parabola of bend 3, with a bottom of 0.5 at ``eps_min``; or, for None, at an arch."""
    k2 = 3.0 if eps_min is not None else -3.0
    bottom = eps_min or 0.0
    k0, k1 = 0.5 + k2 * bottom**2, -2 * k2 * bottom
    eps = tuple(lr * e for e in (-0.5, -0.25, 0.0, 0.25, 0.5))
    validation_eps = tuple(lr * e for e in (-0.75, 0.75))
    return Record(
        step, "explore", verdict, f"because of step {step}", lr, lr, loss=0.6, drop_rate=0.01, drop_rate_stderr=0.002,
        forwards=7, eps=eps, losses=tuple(k0 + k1 * e + k2 * e**2 for e in eps), k0=k0, k1=k1, k2=k2,
        eps_min=eps_min, eps_min_stderr=0.01, validation_eps=validation_eps, validation_losses=(0.7, 0.8),
        observations=4,
    )  # fmt: skip


def a_run(
    name: str = "a", schedule: str = "fixed", epochs: int = 2, *, done: int | None = None, seed: int = 0,
    lr: float = 0.1, accuracy: float = 0.9, decisions: tuple[Record, ...] = (), **other: Any,
) -> Run:  # fmt: skip
    """A run of ``epochs``, cut off where fewer are ``done``."""
    rows = [
        {
            "epoch": e,
            "step": STEPS * e,
            "lr": lr,
            "train_loss": 2.0 / e,
            "test_loss": 3.0 / e,
            "test_accuracy": accuracy,
        }
        for e in range(1, (epochs if done is None else done) + 1)
    ]
    steps = [{"step": s, "epoch": 1 + s // STEPS, "lr": lr, "loss": 1.0} for s in range(10, STEPS * len(rows) + 10, 10)]
    result = {"train_loss": 2.0 / epochs, "test_loss": 3.0 / epochs, "test_accuracy": accuracy, "training_seconds": 1.5}
    settings = Settings("digits", "sgd", schedule, lr, epochs, 32, seed, **other)
    provenance = {"command": "autolr train digits", "version": "9.8.7", "commit": "c0ffee", "torch": "2.99"}
    return Run(Path(name), settings, provenance, steps, rows, list(decisions), result if done is None else None)


class Page(HTMLParser):
    """What a browser would find: attributes, and the text of each table's rows."""

    def __init__(self, index: Path) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._table: list[list[str]] = []
        self._in_cell = False
        self.feed(index.read_text(encoding="utf8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for key, value in attrs if key in {"src", "href", "srcset", "data", "action"}]
        if tag == "table":
            self._table = self.tables.setdefault(str(dict(attrs).get("id", "decisions")), [])
        elif tag == "tr":
            self._table.append([])
        elif tag in {"td", "th"}:
            self._table[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        data = data.replace(NBSP, " ")
        self.text += data
        if self._in_cell:
            self._table[-1][-1] += data

    def summary(self, run: str) -> dict[str, str]:
        """The first row of the summary that begins with ``run``, by heading."""
        headings, *rows = self.tables["summary"]
        return dict(zip(headings, next(row for row in rows if row[0] == run), strict=True))


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def points(axes: Axes, colour: str) -> list[tuple[float, float]]:
    """The points of all marker lines of a colour."""
    lines = [
        line for line in axes.lines if to_hex(line.get_color()) == colour and line.get_marker() not in {"", "None"}
    ]
    return [(float(x), float(y)) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


# The page


def test_every_decision_is_on_the_page_with_its_reason(tmp_path: Path) -> None:
    log = (
        a_look(10),
        dataclasses.replace(a_look(20), verdict="raise", lr_after=0.125, reason="LR raised"),
        a_look(30, eps_min=None),
    )
    page = Page(write_report([a_run(schedule="autolr", decisions=log)], tmp_path))
    _, *rows = page.tables["decisions"]
    assert [row[-1] for row in rows] == ["because of step 10", "LR raised", "because of step 30"]
    assert rows[0] == ["10", "explore", "keep", "0.1", "0.6", "0.01 ± 0.002", "0.02 ± 0.01", "7", "because of step 10"]
    assert rows[1][2:4] == ["raise", "0.1 → 0.125"]
    assert rows[2][6] == DASH, "a look without a minimum has none to show"


def test_text_from_a_log_is_text_on_the_page(tmp_path: Path) -> None:
    evil = "<script>alert('&amp;')</script>"
    run = a_run("x<y", "autolr", decisions=(dataclasses.replace(a_look(), reason=evil),))
    run = dataclasses.replace(run, settings=dataclasses.replace(run.settings, workload='"><img src=x>'))
    page = Page(write_report([run], tmp_path))
    assert "script" not in page.tags
    assert page.tables["decisions"][1][-1] == evil
    assert page.summary("x<y")["settings"] == '"><img src=x> sgd autolr'
    assert page.tags.count("img") == 3


def test_the_page_loads_nothing_but_holds_the_pictures_that_lie_beside_it(tmp_path: Path) -> None:
    index = write_report([a_run("b"), a_run(schedule="autolr", decisions=(a_look(),))], tmp_path)
    page = Page(index)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "url(" not in index.read_text(encoding="utf8")
    prefix = "data:image/png;base64,"
    assert all(load.startswith(prefix) for load in page.loads)
    held = {base64.b64decode(load.removeprefix(prefix), validate=True) for load in page.loads}
    assert held == {file.read_bytes() for file in tmp_path.glob("*.png")}
    assert len(held) == 3


def test_pictures_grow_with_what_they_show(tmp_path: Path) -> None:
    write_report([a_run(schedule="autolr", epochs=10, decisions=tuple(map(a_look, range(1, 5))))], tmp_path)
    sizes = {file.name.split("-")[0]: size_of(file.read_bytes()) for file in tmp_path.glob("*.png")}
    assert sizes["curves"] == (round(4 * 3.3 * DPI), round((2 * 2.6 + 0.6) * DPI)), "4 panels, 2 rows from 10 epochs on"
    assert sizes["fits"] == (round(3 * 3.7 * DPI), round((2 * 2.6 + 0.6) * DPI)), "4 looks are 2 rows of 3"


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    runs = [a_run(schedule="autolr", decisions=(a_look(),))]
    pages = [write_report(runs, tmp_path / name).read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


def test_a_cut_off_run_is_said_to_be_one_and_shows_what_it_has(tmp_path: Path) -> None:
    rollback = dataclasses.replace(a_look(8), verdict="roll back", eps=(), forwards=2)
    page = Page(
        write_report([a_run("whole"), a_run("stub", "autolr", 5, done=2, decisions=(a_look(3), rollback))], tmp_path)
    )
    assert "Cut off before the end, and shown as far as logged: stub." in page.text
    row = page.summary("stub")
    assert (row["epochs"], row["train loss"], row["test accuracy"]) == ("2 of 5, cut off", "1", "90.00 %")
    assert (row["looks"], row["changes"], row["rollbacks"]) == ("1", "0", "1")
    assert row["cost [forwards]"] == f"≥ {7 + 2 + 3 * (8 - 3)}", "5 discarded steps at 3 forwards"
    assert page.summary("whole")["epochs"] == "2"


def test_provenance_names_command_version_commit_and_seed(tmp_path: Path) -> None:
    run = a_run(schedule="autolr", seed=17, policy={"saturation": 42.0})
    headings, row = Page(write_report([run], tmp_path)).tables["provenance"]
    told = dict(zip(headings, row, strict=True))
    assert (told["command"], told["version"], told["commit"]) == ("autolr train digits", "9.8.7", "c0ffee")
    assert (told["seed"], told["torch"], told["machine"]) == ("17", "2.99", DASH)
    assert "saturation 42.0" in told["settings"]


def without_epochs(run: Run) -> Run:
    return dataclasses.replace(run, epochs=[], steps=run.steps[:1], result=None)


def with_nulls(run: Run) -> Run:
    rows = [row | {"train_loss": None, "test_loss": None} for row in run.epochs]
    steps = [row | {"loss": None} for row in run.steps]
    return dataclasses.replace(run, epochs=rows, steps=steps, result={**(run.result or {}), "train_loss": None})


def no_fit(record: Record) -> Record:
    nothing = dict.fromkeys(("k0", "k1", "k2", "eps_min", "eps_min_stderr", "drop_rate", "drop_rate_stderr"))
    lost: Any = (0.5, None, None, None, None)  # as read back from a log: JSON has no NaN
    return dataclasses.replace(record, **nothing, losses=lost, validation_losses=(None, None), loss=None)


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(dataclasses.replace(a_run(epochs=3, done=0), steps=[]), id="nothing logged yet"),
        pytest.param(without_epochs(a_run(schedule="autolr", decisions=(a_look(),))), id="first epoch not over"),
        pytest.param(a_run(schedule="autolr", epochs=1), id="one epoch, no decision"),
        pytest.param(with_nulls(a_run(schedule="autolr", epochs=12)), id="diverged"),
        pytest.param(a_run(schedule="autolr", decisions=(no_fit(a_look(10)),)), id="no loss to fit"),
        pytest.param(a_run(schedule="autolr", decisions=(a_look(eps_min=None),)), id="no minimum"),
        pytest.param(
            a_run(schedule="autolr", decisions=(dataclasses.replace(a_look(), eps=(), k0=None),)), id="no look"
        ),
    ],
)
def test_any_run_can_be_reported(run: Run, tmp_path: Path) -> None:
    page = Page(write_report([run], tmp_path))
    assert len(page.tables["summary"]) == 2
    assert len(page.tables.get("decisions", [()])) == 1 + len(run.decisions)


def test_a_loss_that_is_not_finite_is_called_so(tmp_path: Path) -> None:
    row = Page(write_report([with_nulls(a_run())], tmp_path)).summary("a")
    assert (row["train loss"], row["test loss"], row["looks"]) == ("not finite", "1.5", DASH)


def test_a_real_run_is_reported_from_its_folder(tmp_path: Path) -> None:
    settings = Settings("digits", "sgd", "autolr", 0.1, 1, 64, 0, window=5, superbatch=2, validation_eps=(-0.75, 0.75))
    result = train(settings, tmp_path / "run")
    run = read_run(tmp_path / "run")
    page = Page(write_report([run], tmp_path / "report"))
    assert [row[-1] for row in page.tables["decisions"][1:]] == [record.reason for record in run.decisions]
    assert page.summary("run")["looks"] == str(result["looks"])
    assert page.summary("run")["cost [forwards]"] == str(result["cost_forward_equivalents"])


def test_a_run_of_auto_is_reported_and_what_its_trials_cost_is_in_the_account(tmp_path: Path) -> None:
    train(Settings("digits", "sgd", "auto", 0.1, 4, 64, 0), tmp_path / "run")
    run = read_run(tmp_path / "run")
    page = Page(write_report([run], tmp_path / "report"))
    assert len(page.tables["decisions"]) == 1 + len(run.decisions)
    assert not looks_of(run)  # a parabola along a step: there is none
    assert run.result is not None
    spent = run.result["cost_forward_equivalents"]
    assert page.summary("run")["cost [forwards]"] == str(spent)
    assert spent - 10 < logged_forwards(run) < spent  # of snapshots and the trial before the first step


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one run"):
        write_report([], tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file.*Name another folder"):
        write_report([a_run()], tmp_path / "file")


# Means over seeds


def test_the_mean_row_is_mean_and_standard_deviation_over_finished_seeds(tmp_path: Path) -> None:
    runs = [a_run(f"r{seed}", seed=seed, accuracy=0.90 + 0.02 * seed) for seed in range(3)]
    runs.append(a_run("r3", seed=3, accuracy=0.1, done=1))
    row = Page(write_report(runs, tmp_path)).summary("mean ± sd")
    assert (row["seed"], row["test accuracy"], row["train loss"]) == ("n = 3 of 4", "92.0 ± 2.0 %", "1 ± 0")


def test_a_mean_over_a_run_that_diverged_is_no_number() -> None:
    assert mean_and_spread("train_loss", [0.5, None, math.inf]) == "not finite in 2 of 3"


def test_a_spread_has_two_digits_and_the_mean_as_many_decimals() -> None:
    texts = [mean_and_spread("train_loss", values) for values in ([1.0, 1.02], [100.0, 300.0], [0.0, 1e-9])]
    assert [text.replace(NBSP, " ") for text in texts] == ["1.010 ± 0.014", "200 ± 141", "5e-10 ± 7.07e-10"]


def test_only_runs_that_differ_by_seed_are_averaged() -> None:
    runs = [a_run(seed=0), a_run(seed=1, device="cuda"), a_run(lr=0.5), a_run(schedule="autolr")]
    groups = group_runs(runs)
    assert [len(group.runs) for group in groups] == [2, 1, 1]
    assert [group.name for group in groups] == [
        "digits sgd fixed, lr 0.1",
        "digits sgd fixed, lr 0.5",
        "digits sgd autolr",
    ]


def test_a_policy_sets_runs_apart_too() -> None:
    groups = group_runs([a_run(policy={"explore": 0.2, "factor": 2.0}), a_run(policy={"explore": 0.3, "factor": 2.0})])
    assert [group.name for group in groups] == ["digits sgd fixed, explore 0.2", "digits sgd fixed, explore 0.3"]


def test_names_are_as_short_as_tells_runs_apart() -> None:
    assert run_names([a_run("x/a"), a_run("x/b")]) == ["a", "b"]
    assert run_names([a_run("x/a"), a_run("y/a")]) == ["x/a", "y/a"]
    assert len(set(run_names([a_run("x/a"), a_run("x/a")]))) == 2


def test_a_mean_keeps_jumps_and_ends_where_the_first_line_ends() -> None:
    jump = Line(np.array([1.0, 2.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 3.0, 3.0, 3.0]))
    flat = Line(np.array([0.0, 3.0]), np.array([1.0, 1.0]))
    mean = mean_line([jump, flat])
    assert (mean.x[0], mean.x[-1]) == (1.0, 3.0)
    assert np.interp([1.0, 1.999, 2.001, 3.0], mean.x, mean.y) == pytest.approx([1.0, 1.0, 2.0, 2.0])


# Curves


def test_autolr_is_blue_and_the_baseline_orange_in_any_order() -> None:
    groups = group_runs([a_run(schedule=schedule) for schedule in ("hold", "fixed", "autolr", "cosine")])
    assert (colours(groups)[0], colours(groups)[2]) == (ORANGE, BLUE)
    assert len(set(colours(groups))) == 4


def test_the_later_half_has_its_own_row_and_y_range_from_ten_epochs_on() -> None:
    assert len(draw_curves(group_runs([a_run(epochs=9)])).axes) == 4
    figure = draw_curves(group_runs([a_run(epochs=10)]))
    assert len(figure.axes) == 8
    early, late = figure.axes[0], figure.axes[4]
    assert early.get_ylim()[1] > 2.0 > 2.0 / 5 >= late.get_ylim()[1] / 1.2, "2.0 is the first loss, 2/5 that of epoch 5"
    assert late.get_xlim()[0] == 5


def test_loss_and_rate_have_a_log_axis_and_accuracy_has_none() -> None:
    run = a_run(epochs=9)
    run.steps[3]["lr"] = 1e-4
    assert [axes.get_yscale() for axes in draw_curves(group_runs([run])).axes] == ["log", "log", "linear", "log"]


def test_the_rate_jumps_where_it_was_decided_between_logged_steps() -> None:
    change = dataclasses.replace(a_look(25), lr_after=0.3)
    run = a_run(schedule="autolr", decisions=(change,))
    line = rate_line(run, measure([run]))
    jump = line.x == 25 / STEPS
    assert line.y[jump].tolist() == [0.1, 0.3]


def test_a_run_in_its_first_epoch_is_drawn_by_step_and_beside_another_by_epoch() -> None:
    started = without_epochs(a_run())
    assert measure([started]).unit == "step"
    assert measure([started, a_run()]).place(started, [STEPS]).tolist() == [1.0]


def test_rollbacks_and_phase_changes_are_marked_on_the_rate() -> None:
    rollback = dataclasses.replace(a_look(10), verdict="roll back", lr_before=0.4, lr_after=0.2)
    exploit = dataclasses.replace(a_look(30), phase="exploit")
    figure = draw_curves(group_runs([a_run(schedule="autolr", decisions=(rollback, exploit))]))
    rates = figure.axes[3]
    assert [c.get_offsets().tolist() for c in rates.collections] == [[[10 / STEPS, 0.4]]]
    assert [line.get_xdata()[0] for line in rates.lines if line.get_linestyle() == ":"] == [30 / STEPS]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["digits sgd autolr, seed 0", "rolled back", "explore → exploit"]


def test_a_schedule_that_ends_at_nothing_does_not_stretch_the_axis() -> None:
    run = a_run(schedule="cosine", epochs=50)
    for row in run.steps:
        row["lr"] = 0.1 * (1 - row["step"] / (50 * STEPS)) + 1e-12
    bottom, top = draw_curves(group_runs([run])).axes[3].get_ylim()
    assert 1e-4 < bottom < 0.1 * TAIL, "not 1e-12, the last rate"
    assert top > 0.1


# Looks


def test_at_most_nine_looks_are_drawn_from_first_to_last() -> None:
    looks = [a_look(step) for step in range(1, 31)]
    chosen = choose(looks)
    assert (len({look.step for look in chosen}), chosen[0].step, chosen[-1].step) == (9, 1, 30)
    titles = [axes.get_title() for axes in draw_fits(chosen).axes if axes.axison]
    assert titles == [f"step {look.step}, LR 0.1: keep" for look in chosen]


def test_fewer_looks_are_all_drawn() -> None:
    assert sum(axes.axison for axes in draw_fits(choose([a_look(step) for step in range(1, 6)])).axes) == 5


def test_a_look_shows_its_samples_its_held_out_samples_and_its_minimum() -> None:
    look = a_look(eps_min=0.02)
    axes = draw_fits([look]).axes[0]
    assert points(axes, ORANGE) == list(zip(look.eps, look.losses, strict=True))
    assert points(axes, GREEN) == list(zip(look.validation_eps, look.validation_losses, strict=True))
    assert points(axes, RED) == [(0.02, pytest.approx(0.5))]
    assert remark(look) is None


@pytest.mark.parametrize(("eps_min", "text"), [(4.0, "minimum at +4 →"), (-4.0, "← minimum at -4")])
def test_a_minimum_far_outside_is_told_and_leaves_the_axis_alone(eps_min: float, text: str) -> None:
    axes = draw_fits([a_look(eps_min=eps_min)]).axes[0]
    assert points(axes, RED) == []
    assert [t.get_text() for t in axes.texts] == [text]
    assert axes.get_xlim() == draw_fits([a_look(eps_min=None)]).axes[0].get_xlim()


def test_a_minimum_just_outside_is_drawn() -> None:
    axes = draw_fits([a_look(eps_min=0.12)]).axes[0]
    assert [x for x, _ in points(axes, RED)] == [0.12]
    assert axes.get_xlim()[1] > 0.12


def test_a_look_without_a_fit_or_a_minimum_says_so() -> None:
    assert remark(no_fit(a_look())) == "no fit: a loss is not finite"
    assert remark(a_look(eps_min=None)) == "the fit has no minimum"


def test_advice_is_drawn_in_multiples_of_the_rate_and_clipped_at_the_edge() -> None:
    figure = draw_advice([a_look(1, 0.1, 0.05), a_look(2, 0.2, -0.1), a_look(3, 0.1, 1e6), a_look(4, eps_min=None)])
    assert figure is not None
    axes = figure.axes[0]
    drawn = [
        point
        for line in axes.lines
        for point in zip(*line.get_data(), strict=True)
        if line.get_marker() in {"o", "v", "^"}
    ]
    assert drawn == [(1, 0.5), (2, -0.5), (3, 100.0)]
    assert 100 < axes.get_ylim()[1] < 1000


def test_no_minimum_at_all_is_no_picture() -> None:
    assert draw_advice([a_look(eps_min=None)]) is None


# The search of `Auto`


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "auto"
    train(Settings("digits", "adam", "auto", 0.001, 8, 32, 0, device="cpu", measure=None), out)
    return read_run(out)


def test_a_search_is_read_from_the_log_as_its_reasons_tell_it(searched: Run) -> None:
    search = search_of(searched.decisions)
    assert search is not None
    told = [re.match(r"tried (\S+): the loss went from (\S+) to ([\d.]+)", r.reason) for r in searched.decisions]
    ends = [tuple(map(float, found.groups())) for found in told if found]
    assert len(ends) >= 3
    assert [rate for rate, _ in search.trials] == pytest.approx([rate for rate, _, _ in ends], rel=0.01)
    assert [start for _, start, _ in ends] == pytest.approx([search.start] * len(ends), rel=0.01)
    gained = [(end, loss) for (_, start, end), (_, loss) in zip(ends, search.trials, strict=True) if end < start]
    assert len(gained) >= 2
    assert all(loss == pytest.approx(end, rel=0.01) for end, loss in gained)
    (over,) = (record for record in searched.decisions if record.verdict == "go on")
    assert search.peak == over.lr_after
    assert f"the peak is {search.peak:.3g}, from where" in over.reason


def test_a_search_is_drawn_with_its_parabola_s_bottom_at_the_peak(searched: Run) -> None:
    search = search_of(searched.decisions)
    assert search is not None
    first, trials = draw_search(search).axes
    assert [x for x, _ in points(first, ORANGE)] == pytest.approx([10.0**k for k in range(1, -8, -1)])
    assert points(trials, ORANGE) == [(rate, min(loss, search.start)) for rate, loss in search.trials]
    ((bottom, _),) = points(trials, RED)
    assert bottom == pytest.approx(search.peak)


def test_a_first_step_that_was_taken_again_is_drawn_as_it_was_at_last(searched: Run) -> None:
    """Its loss was no number, on a bad minibatch."""
    undone = next(record for record in searched.decisions if record.verdict == "undo")
    bad = dataclasses.replace(undone, losses=(None,) * len(undone.losses), loss=None, lr_after=undone.lr_before)
    assert search_of([bad, *searched.decisions]) == search_of(searched.decisions)


def test_a_trial_that_lost_is_drawn_hollow_where_the_trials_began(searched: Run) -> None:
    search = search_of(searched.decisions)
    assert search is not None
    lost = dataclasses.replace(search, lengths=[[*search.trials, (9.0, math.inf)]])
    line = draw_search(lost).axes[1].lines[len(lost.trials)]
    assert (line.get_xdata()[0], line.get_ydata()[0]) == (9.0, search.start)
    assert line.get_markerfacecolor() == "none"


def test_trials_that_were_made_again_longer_are_drawn_grey_and_the_peak_is_the_longer_ones(searched: Run) -> None:
    first = next(k for k, record in enumerate(searched.decisions) if record.verdict == "go back")
    again = list(searched.decisions)
    again[first] = dataclasses.replace(again[first], verdict="start over")
    before, search = search_of(searched.decisions), search_of(again)
    assert before is not None
    assert search is not None
    assert [*search.shorter, *search.trials] == before.trials
    assert len(search.shorter) == 1
    figure = draw_search(search)
    assert points(figure.axes[1], GREY) == [(rate, loss) for rate, loss in search.shorter]
    assert "longer ones ended" in figure.axes[1].get_title()
    assert "of shorter trials" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_peak_that_a_longer_trial_bore_out_is_drawn_with_the_parabola_that_found_it(tmp_path: Path) -> None:
    train(Settings("digits", "adam", "auto", 0.001, 16, 32, 0, device="cpu", measure=None), tmp_path / "run")
    search = search_of(read_run(tmp_path / "run").decisions)
    assert search is not None
    ((tried, loss),) = search.trials
    assert search.found == search.peak == tried
    assert len(search.shorter) >= 3
    trials = draw_search(search).axes[1]
    assert points(trials, ORANGE) == [(tried, loss)]
    assert len(points(trials, GREY)) == len(search.shorter)
    ((bottom, _),) = points(trials, RED)
    assert bottom == pytest.approx(tried)
    assert "the longer one ended" in trials.get_title()


def test_a_peak_that_was_tried_is_drawn_without_a_parabola(searched: Run) -> None:
    search = search_of(searched.decisions)
    assert search is not None
    lowest = dataclasses.replace(search, peak=min(rate for rate, _ in search.trials))
    assert points(draw_search(lowest).axes[1], RED) == []


def test_a_run_that_was_cut_off_in_its_search_shows_what_it_has(searched: Run, tmp_path: Path) -> None:
    for number in range(1, 8):
        search = search_of(searched.decisions[:number])
        assert search is not None
        assert search.peak is None
        draw_search(search)
    assert search_of([]) is None
    assert search_of([a_look()]) is None
    cut_off = dataclasses.replace(searched, decisions=searched.decisions[:5], result=None)
    assert "How the peak rate was found" in Page(write_report([cut_off], tmp_path)).text
