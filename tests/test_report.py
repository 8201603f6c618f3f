"""The report: what it says must be what was logged, and it must say it for any training."""

import base64
import dataclasses
import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.colors import to_hex

from autolr.report import ReportError, Training, read_trainings, write_report
from autolr.report.curves import draw_curves
from autolr.report.drawing import BLUE, GREEN, ORANGE, RED, to_png
from autolr.report.fits import choose, draw_fits, finding
from autolr.report.search import draw_search
from autolr.report.summary import DASH, headline, table
from autolr.report.training_record import outcome
from autolr.report.words import label, printable
from autolr.runtime.decision_log import DecisionRecord

HOSTILE = "[/]\x1b[31m$x_{<b>&\udcff"


def a_record(step=10, lr=0.1, to=None, **other):
    fields = {
        "phase": "explore", "verdict": "keep", "trigger": "no change", "reason": f"because of step {step}",
        "loss": 0.6, "drop_rate": 0.01, "drop_rate_stderr": 0.002, "forwards": 7, "spent": 30, "seconds": 1.5,
    }  # fmt: skip
    return DecisionRecord(step=step, lr_before=lr, lr_after=lr if to is None else to, **fields | other)


def a_probe(step=10, lr=0.1, eps_min=0.02, **other):
    """A probe of a parabola of bend 3 with its bottom of 0.5 at ``eps_min``; or, for None, of an arch."""
    k2 = -3.0 if eps_min is None else 3.0
    k0, k1 = 0.5 + k2 * (eps_min or 0) ** 2, -2 * k2 * (eps_min or 0)
    eps = tuple(lr * e for e in (-0.5, -0.25, 0.0, 0.25, 0.5))
    fitted = {
        "eps": eps, "losses": tuple(k0 + k1 * e + k2 * e**2 for e in eps), "k0": k0, "k1": k1, "k2": k2,
        "eps_min": eps_min, "eps_min_stderr": 0.01, "validation_eps": (-0.075, 0.075), "validation_losses": (0.7, 0.8),
        "observations": 4,
    }  # fmt: skip
    return a_record(step, lr, **fitted | other)


def a_search(**other):
    runs = [
        {"length": 10, "lr": 0.001, "losses": [1.9, 2.1]},
        {"length": 10, "lr": 0.004, "losses": [1.4, 1.6]},
        {"length": 10, "lr": 0.016, "losses": [1.7, 1.9]},
        {"length": 10, "lr": 1.0, "losses": []},
        {"length": 40, "lr": 0.002, "losses": [1.0, 1.2]},
        {"length": 40, "lr": 0.008, "losses": [700.0, 900.0]},
    ]
    peak = {"lr": 0.003, "low": 0.002, "high": 0.005, "total_steps": 1000, "runs": runs, "start_losses": [2.2, 2.4]}
    return peak | other


def a_found_peak(**other):
    found = {"phase": "search", "verdict": "lower", "trigger": "peak found", "spent": 183, "search": a_search()}
    return a_record(0, 0.1, to=0.003, **found | other)


def some_points(steps=(20, 40, 60), lr=0.1):
    fine = [{"step": step - 10, "lr": lr, "loss": 3.0 / step} for step in steps]
    return fine + [{"step": s, "train_loss": 2.0 / s, "test_loss": 4.0 / s, "test_accuracy": 0.9} for s in steps]


def write_lines(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        "".join((row.to_json() if isinstance(row, DecisionRecord) else json.dumps(row)) + "\n" for row in rows)
    )
    return file


class Page(HTMLParser):
    """What a browser would find."""

    def __init__(self, index):
        super().__init__()
        self.text, self.tags, self.loads, self.tables = "", [], [], {}
        self._in_cell = False
        self.feed(index.read_text(encoding="utf8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value or "" for key, value in attrs if key in {"src", "href", "srcset", "data", "action"}]
        if tag == "table":
            self._table = self.tables.setdefault(dict(attrs).get("id", "decisions"), [])
        elif tag == "tr":
            self._table.append([])
        elif tag in {"td", "th"}:
            self._table[-1].append("")
            self._in_cell = True
        if tag == "img":
            assert dict(attrs)["alt"]

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag not in {"td", "th"}

    def handle_data(self, data):
        self.text += data
        if self._in_cell:
            self._table[-1][-1] += data


def marked(axes, colour, marker):
    """The points that are drawn in a colour with a marker."""
    lines = [line for line in axes.lines if to_hex(line.get_color()) == colour and line.get_marker() == marker]
    return [(float(x), float(y)) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


# Reading


def test_a_log_is_read_as_it_was_written(tmp_path):
    records = [a_found_peak(), a_probe(30), a_record(40, verdict="roll back")]
    (training,) = read_trainings([write_lines(tmp_path / "mine.jsonl", records)])
    assert (training.name, training.records, training.points) == ("mine", records, [])
    assert training.total_steps == 1000, "the search says how long the run is to be"


def test_in_a_folder_the_first_line_of_a_file_tells_decisions_from_points(tmp_path):
    write_lines(tmp_path / "run" / "z.jsonl", [a_probe()])
    write_lines(tmp_path / "run" / "fine.jsonl", [{"step": 30, "loss": 2}, {"step": 60, "loss": math.nan, "note": "x"}])
    write_lines(tmp_path / "run" / "epochs.jsonl", [{"step": 50, "test_loss": 1.5}])
    write_lines(tmp_path / "run" / "chat.jsonl", [{"prompt": "hello"}])
    (tmp_path / "run" / "model.pt").write_bytes(b"\x00\xff")
    (training,) = read_trainings([tmp_path / "run"])
    assert training.name == "run"
    assert training.records == [a_probe()]
    assert training.points == [{"step": 30, "loss": 2}, {"step": 50, "test_loss": 1.5}, {"step": 60, "loss": None}]


def test_a_folder_of_folders_is_all_the_trainings_in_it_by_the_shortest_names_that_differ(tmp_path):
    for place in ("a/run", "b/run", "c"):
        write_lines(tmp_path / place / "log.jsonl", [a_record()])
    write_lines(tmp_path / "c" / "other.jsonl", [a_record()])
    names = [training.name for training in read_trainings([tmp_path, tmp_path / "a"])]
    assert names == ["a/run", "b/run", "c/log", "c/other"]


def test_points_alone_are_a_training_that_nobody_tuned(tmp_path):
    write_lines(tmp_path / "points.jsonl", some_points())
    (training,) = read_trainings([tmp_path])
    assert len(training.points) == 6
    assert "did not tune" in headline(training)


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_last_line_that_a_kill_cut_off_is_left_out(tmp_path, cut):
    file = write_lines(tmp_path / "log.jsonl", [a_record(1), a_record(2)])
    file.write_bytes(file.read_bytes()[: -cut - 1])
    assert read_trainings([file])[0].records == [a_record(1)]


def test_a_last_line_without_its_newline_counts(tmp_path):
    file = write_lines(tmp_path / "log.jsonl", [a_record(1), a_record(2)])
    file.write_text(file.read_text().rstrip())
    assert len(read_trainings([file])[0].records) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"lr_before": "high"}, {"loss": [1]}, {"loss": math.inf}, {"eps": [0.1], "losses": []}, {"reason": None},
        {"search": "none"}, {"search": {"lr": 1}}, {"search": {**a_search(), "runs": [3]}}, {"spent": True},
        {"search": {**a_search(), "lr": 0}}, {"step": 10**400}, {"colour": "blue"}, {"eps": [None], "losses": [1]},
        pytest.param("[" * 100_000, id="deep"), pytest.param("no JSON", id="text"), pytest.param("7", id="number"),
    ],
    ids=",".join,
)  # fmt: skip
def test_a_damaged_line_is_named_in_one_line(tmp_path, change):
    line = change if isinstance(change, str) else json.dumps(dataclasses.asdict(a_record()) | change)
    file = tmp_path / "log.jsonl"
    file.write_text(f"{a_record().to_json()}\n{line}\n{a_record().to_json()}\n")
    with pytest.raises(ReportError, match=r"log.jsonl, line 2, is damaged") as told:
        read_trainings([file])
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x89PNG\r\n", b"{}\n", b'{"step": 1}\n', b"[1]\n", b"\xff\xfe"])
def test_a_file_of_another_kind_is_said_to_be_no_log(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ReportError, match=r"file is no decision log.*trace=FILE"):
        read_trainings([tmp_path / "file"])


def test_a_place_with_nothing_to_read_is_named(tmp_path):
    with pytest.raises(ReportError, match="nowhere does not exist"):
        read_trainings([tmp_path / "nowhere"])
    with pytest.raises(ReportError, match="holds no decision log"):
        read_trainings([tmp_path])


# Words


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (a_record(), "kept"), (a_record(to=0.2), "raised"), (a_record(to=0.05), "lowered"),
        (a_record(to=0.05, verdict="roll back"), "rolled back"), (a_found_peak(), "peak found"),
    ],
)  # fmt: skip
def test_a_decision_is_called_by_what_it_did_to_the_rate(record, word):
    assert outcome(record) == word


def test_the_headline_tells_the_peak_its_price_and_what_happened_since():
    since = [a_record(500), a_record(600, 0.003, to=0.001, verdict="roll back"), a_record(700, 0.001, to=0.0005)]
    told = headline(Training("run", [a_found_peak(), *since]))
    assert told.startswith("Peak 0.003 (0.002 to 0.005) found in 6 short runs, 8.7 % of the run's own cost;")
    assert told.endswith("since then 1 cut, 1 rollback.")


def test_the_headline_says_where_no_peak_was_found():
    told = headline(Training("run", [a_found_peak(trigger="no peak", search=a_search(lr=0.1))], (), 610))
    assert told.startswith("No rate gained anything in 6 short runs, so the run keeps its own, 0.1, 10 % of")


def test_the_headline_of_a_policy_with_probes_tells_from_where_to_where_the_rate_went():
    records = [a_probe(20, to=0.2), a_probe(40, 0.2, to=0.4), a_record(60, 0.4, to=0.1, spent=45)]
    assert headline(Training("run", records, (), 100)) == (
        "The learning rate went from 0.1 to 0.1: 2 probes, 2 rises, 1 cut; AutoLR cost 15 % of the run's own cost."
    )
    assert headline(Training("run", [a_probe()], (), 100)).startswith("The learning rate stayed at 0.1: 1 probe, no")


def test_the_table_has_the_last_values_and_what_was_spent():
    tuned = Training("a", [a_probe(60, to=0.2), a_record(61, verdict="roll back")], some_points(), 100)
    ended = Training("b", [], [{"step": 5, "test_loss": None}], None, {"test_loss": 2.5})
    headings, (first, second) = table([tuned, ended])
    assert dict(zip(headings, first, strict=True)) == {
        "training": "a", "steps": "61 of 100", "train loss": "0.03333", "test loss": "0.06667",
        "test accuracy": "90.00 %", "probes": "1", "changes": "1", "rollbacks": "1", "forward passes": "30",
        "share": "10.00 %", "seconds": "1.5",
    }  # fmt: skip
    assert second == ["b", "5", DASH, "2.5", *[DASH] * 7]


def test_text_from_a_file_is_harmless_in_a_terminal_and_in_a_picture():
    assert printable(HOSTILE) == r"[/]\x1b[31m$x_{<b>&\udcff"
    assert label("_a$b$") == r" _a\$b\$"
    assert to_png(
        draw_curves([Training(HOSTILE, [a_record()]), Training("_", [a_record(phase="$\\")]), Training("学", [])])
    )


# Pictures


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
    assert marked(axes, RED, "o") == [(0.02, pytest.approx(0.5))]
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"] == [pytest.approx(0.02)]
    assert axes.get_title() == "step 10, LR 0.1: raised\nminimum at +0.02"


def test_a_minimum_just_outside_is_drawn_and_one_far_outside_is_told():
    near, far = draw_fits([a_probe(eps_min=0.12), a_probe(eps_min=-4.0)]).axes
    assert [x for x, _ in marked(near, RED, "o")] == [0.12]
    assert marked(far, RED, "o") == []
    assert far.get_title().endswith("minimum at -4")
    assert far.get_xlim()[0] > -0.1


def test_a_probe_without_a_fit_or_a_minimum_says_so():
    assert finding(a_probe(eps_min=None)) == "the fit has no minimum"
    assert finding(a_probe(k0=None)) == "no fit: a loss is not finite"


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


def test_the_parabola_of_a_length_has_its_bottom_between_the_runs_beside_the_lowest():
    (axes,) = draw_search(a_search()).axes
    (curve,) = [line for line in axes.lines if len(line.get_xdata()) == 50]
    lowest = curve.get_xdata()[np.argmin(curve.get_ydata())]
    assert 0.004 < lowest < 0.016, "the run at .016 ended lower than that at .001"


# The page


def test_every_decision_is_on_the_page_with_its_reason(tmp_path):
    records = [a_probe(10), a_record(20, to=0.125, reason="LR raised"), a_record(30, loss=None, drop_rate=None)]
    page = Page(write_report([Training("run", records)], tmp_path))
    _, first, second, third = page.tables["decisions"]
    assert first == ["10", "explore", "kept", "0.1", "0.6", "0.01 ± 0.002", "0.02 ± 0.01", "because of step 10"]
    assert second[2:4] == ["raised", "0.1 → 0.125"]
    assert second[-1] == "LR raised"
    assert third[4:7] == ["not finite", DASH, DASH]


def test_the_page_loads_nothing_but_holds_the_pictures_that_lie_beside_it(tmp_path):
    index = write_report([Training("a", [a_found_peak(), a_probe()]), Training("b", [], some_points())], tmp_path)
    page = Page(index)
    assert not {"script", "link"} & set(page.tags)
    assert "url(" not in index.read_text(encoding="utf8")
    prefix = "data:image/png;base64,"
    held = {base64.b64decode(load.removeprefix(prefix), validate=True) for load in page.loads}
    assert held == {file.read_bytes() for file in tmp_path.glob("*.png")}
    assert len(held) == 3, "curves, a search, fits"


def test_text_from_a_log_is_text_on_the_page(tmp_path):
    evil = "<script>alert('&amp;')</script>"
    page = Page(write_report([Training('"><img src=x>', [a_record(reason=evil, phase="\ud800")])], tmp_path))
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert page.tables["decisions"][1][-1] == evil
    assert page.tables["summary"][1][0] == '"><img src=x>'


def test_the_same_trainings_give_the_same_page(tmp_path):
    pages = [
        write_report([Training("run", [a_found_peak(), a_probe()])], tmp_path / name).read_bytes() for name in "ab"
    ]
    assert pages[0] == pages[1]


NO_FIT = dict.fromkeys(("k0", "k1", "k2", "eps_min", "eps_min_stderr", "loss"))


@pytest.mark.parametrize(
    "trainings",
    [
        pytest.param([Training("run", [])], id="nothing yet"),
        pytest.param(
            [
                Training("diverged at once", [], [{"step": 0, "loss": None}]),
                Training("zero rate, negative loss", [], [{"step": 5, "lr": 0.0, "test_loss": -3.0}]),
                Training("no rate", [a_record(0, 0.0)]),
                Training("many phases", [a_record(phase=str(k)) for k in range(9)]),
            ],
            id="bad curves",
        ),
        pytest.param(
            [Training("run", [a_record(1, 1e-90), a_record(2, 1e90)], some_points(lr=-1.0))], id="absurd rates"
        ),
        pytest.param(
            [
                Training("no fit", [a_probe(losses=(None,) * 5, **NO_FIT)]),
                Training("one sample", [a_probe(eps=(0.1,), losses=(1.0,), validation_eps=(), validation_losses=())]),
            ],
            id="bad probes",
        ),
        pytest.param(
            [
                Training("no runs", [a_found_peak(search=a_search(runs=[], start_losses=[]))]),
                Training("no interval", [a_found_peak(search=a_search(low=0.003, high=0.003))]),
            ],
            id="bad searches",
        ),
    ],
)
def test_any_training_can_be_reported(trainings, tmp_path):
    page = Page(write_report(trainings, tmp_path))
    assert len(page.tables["summary"]) == 1 + len(trainings)
    tuned = [training for training in trainings if training.records]
    assert len(page.tables.get("decisions", [])) == sum(1 + len(training.records) for training in tuned)


def test_a_report_of_nothing_or_to_nowhere_is_refused(tmp_path):
    with pytest.raises(ReportError, match="at least one training"):
        write_report([], tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ReportError, match=r"file.*Name another folder"):
        write_report([Training("run", [a_record()])], tmp_path / "file")
