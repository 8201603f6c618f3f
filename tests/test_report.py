"""The page: what it says must be what was logged, and it must say it for any training."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import autolr
from autolr.report import ReportError, Training, page, write_page
from autolr.report.findings import metric_finding, probe_finding, rate_finding, search_finding
from autolr.report.page_data import data_of
from autolr.report.summary import DASH, headline, overall, table
from autolr.report.training_record import outcome
from autolr.report.words import label, printable
from report_inputs import HOSTILE, a_found_peak, a_probe, a_record, a_search, some_points

pytestmark = pytest.mark.usefixtures("_no_vega")

PARTS = Path(autolr.__file__).parent / "report"


class Page(HTMLParser):
    """What a browser would find."""

    def __init__(self, file):
        super().__init__()
        self.text, self.tags, self.loads, self.scripts = "", [], [], []
        self._in_script = False
        self.feed(file.read_text(encoding="utf8"))
        (self.data,) = [json.loads(script) for script in self.scripts if script.startswith("{")]

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value or "" for key, value in attrs if key in {"src", "href", "srcset", "data", "action"}]
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, _):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.text += data


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
    none = a_search(lr=0.1, runs=[])
    told = headline(Training("run", [a_found_peak(trigger="no peak", search=none)], (), 610))
    assert told.startswith("The budget pays for no short run, so the run keeps its own, 0.1,")


def test_the_headline_calls_a_guess_a_guess_and_counts_what_came_after_it():
    guess = a_found_peak(trigger="no peak", verdict="lower")
    told = headline(Training("run", [guess, a_record(500)], some_points(), 610))
    assert told.startswith("The peak 0.003 is a guess, as too little was gained in 6 short runs, 10 % of")
    assert told.endswith("since then no change.")
    assert Training("run", [guess]).rates() == [], "the rate climbs to a guess, too"


def test_the_headline_of_a_schedule_without_a_decision_tells_its_rates():
    points = [{"step": step, "lr": 0.01 * step} for step in (1, 2, 3, 2.5)]
    assert headline(Training("run", [], points, 100)) == (
        "The learning rate follows a schedule up to 0.03, at last 0.025: no decision is logged."
    )
    assert headline(Training("run", [], some_points(), 100)).startswith("No decision is logged")


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
        "run": "a", "status": DASH, "steps": "61 of 100", "train loss": "0.03333", "test loss": "0.06667",
        "test accuracy": "90.00 %", "probes": "1", "changes": "1", "rollbacks": "1", "forward passes": "30",
        "share": "10.00 %", "seconds": "1.5",
    }  # fmt: skip
    assert second == ["b", "finished", "5", DASH, "2.5", *[DASH] * 7]


def test_text_from_a_file_is_harmless_in_a_terminal_and_in_a_legend():
    assert printable(HOSTILE) == r"[/]\x1b[31m$x_{<b>&\udcff"
    assert label("_a$b$") == r" _a\$b\$"


def test_several_trainings_are_told_in_a_sentence_by_how_they_stand_and_the_peaks_that_were_found():
    runs = [
        Training("a", [a_found_peak()], status="finished"), Training("b", [a_found_peak()], status="running"),
        Training("c", [a_found_peak(search=a_search(lr=0.01))], status="stopped"), Training("d", [], some_points()),
    ]  # fmt: skip
    assert overall(runs) == (
        "4 runs: 1 finished, 1 running, 1 stopped. 3 peaks found, from 0.003 to 0.01. AutoLR decided in 3 of them."
    )
    assert overall(runs[:2]) == "2 runs: 1 finished, 1 running. 2 peaks found, 0.003."


@pytest.mark.parametrize(
    ("training", "state"),
    [
        (Training("r", [a_record(10)], (), 100, status="running"), "running"),
        (Training("r", [a_record(10)], (), 100), None),
        (Training("r", [a_record(100)], (), 100), "finished"),
        (Training("r", [], (), None, {"loss": 1.0}), "finished"),
    ],
)  # fmt: skip
def test_a_run_that_goes_on_is_said_to_be_running_and_one_at_its_last_step_finished(training, state):
    assert training.state == state
    assert table([training])[1][0][1] == (state or DASH)


def test_every_decision_is_on_the_page_with_its_reason_its_rates_and_where_it_is_marked(tmp_path):
    records = [
        a_probe(10), a_record(20, to=0.125, reason="LR raised"), a_record(30, loss=None, drop_rate=None),
        a_record(40, 0.125, to=0.05, verdict="roll back", phase="exploit"),
    ]  # fmt: skip
    (run,) = Page(write_page([Training("run", records)], tmp_path / "page.html")).data["runs"]
    assert [d["reason"] for d in run["decisions"]] == [record.reason for record in records]
    assert [(d["step"], d["kind"], d["rates"], d["at"]) for d in run["decisions"]] == [
        (10, "kept", "0.1", 0.1), (20, "raised", "0.1 → 0.125", 0.125), (30, "kept", "0.1", 0.1),
        (40, "rolled back", "0.125 → 0.05", 0.125),
    ]  # fmt: skip
    first, _, third, _ = run["decisions"]
    assert (first["loss"], first["drop"], first["minimum"]) == ("0.6", "0.01 ± 0.002", "0.2 ± 0.1")
    assert (third["loss"], third["drop"], third["minimum"]) == ("not finite", DASH, DASH)
    assert run["phases"] == [{"name": "explore", "from": 0}, {"name": "exploit", "from": 30}]


def test_a_probe_on_the_page_has_its_samples_its_fit_and_what_was_changed():
    (run,) = data_of([Training("run", [a_probe(to=0.12), a_probe(k2=None)])])["runs"]
    probe = a_probe()
    told = run["decisions"][0]["probe"]
    assert (told["eps"], told["losses"]) == (probe.eps, probe.losses)
    assert (told["keptEps"], told["keptLosses"]) == (probe.validation_eps, probe.validation_losses)
    assert told["fit"] == [probe.k0, probe.k1, probe.k2]
    assert (told["minimum"], told["change"], told["finding"]) == (0.2, pytest.approx(0.2), "minimum at +0.2")
    assert run["decisions"][1]["probe"]["fit"] is None


def test_the_curves_on_the_page_are_those_that_were_logged_and_share_a_colour_by_name():
    told = data_of([Training(name, [], some_points()) for name in ("a", "b", "a")])
    assert [run["group"] for run in told["runs"]] == [0, 1, 0]
    assert told["runs"][0]["curves"]["test_loss"] == [[20, 40, 60], [0.2, 0.1, 0.066667]]
    assert [panel["title"] for panel in told["panels"]] == [
        "Learning rate",
        "Training loss",
        "Test loss",
        "Test accuracy",
    ]
    assert [panel["percent"] for panel in told["panels"]] == [False, False, False, True]
    assert told["panels"][1]["finding"].endswith("Bold: means of epochs; thin: of the last steps.")


@pytest.mark.parametrize(
    ("rates", "log"),
    [
        pytest.param([0.1 * min(k / 5, (101 - k) / 50, 1) for k in range(1, 101)], False, id="schedule"),
        pytest.param([1e-3 * 2 ** (k // 10) for k in range(1, 101)], True, id="decades"),
    ],
)
def test_a_schedule_that_ends_at_zero_has_a_plain_axis_and_decades_have_a_logarithmic_one(rates, log):
    training = Training("run", [], [{"step": k, "lr": lr} for k, lr in enumerate(rates, 1)])
    assert data_of([training])["panels"][0]["log"] is log


def test_a_chart_s_text_tells_what_it_shows():
    training = Training("run", [], some_points())
    assert rate_finding([training]) == "From 0.1 at step 10 to 0.1 at step 50; highest 0.1, at step 10."
    assert metric_finding([training], "test_loss", "test loss").startswith("0.2 at step 20, 0.0667 at step 60; best")
    assert metric_finding([training], "test_accuracy", "").startswith("90.0 % at step 20")
    assert rate_finding([training] * 4) == "The highest rates of 4 runs lie from 0.1 to 0.1."
    assert (
        metric_finding([training] * 4, "test_loss", "x")
        == "At the end of 4 runs, x is 0.0667 to 0.0667, 0.0667 in the middle."
    )
    assert metric_finding([training], "no", "no") == "No finite no was logged."
    assert rate_finding([]) == "No learning rate was logged."
    assert search_finding(a_search()) == (
        "Chosen peak: 0.003, believed between 0.002 and 0.005. The loss where all begin is 2.3. 4 runs of 10 steps, "
        "best at 0.004 (1 diverged); 2 runs of 40 steps, best at 0.002."
    )
    lower = search_finding(a_search(shortfall=1.0))
    assert "0.005; 2 times lower than the short runs alone tell, as the optimizer's first steps are shorter." in lower
    assert search_finding(a_search(shortfall=0.01)) == search_finding(a_search())
    assert probe_finding(a_probe(eps_min=None)) == "the fit has no minimum"
    assert probe_finding(a_probe(k0=None)) == "no fit: a loss is not finite"


def test_the_page_needs_no_file_and_no_network(tmp_path):
    file = write_page(
        [Training("a", [a_found_peak(), a_probe()]), Training("b", [], some_points())], tmp_path / "x" / "p.html"
    )
    found = Page(file)
    assert set(found.loads) == {"#curves"}
    assert "link" not in found.tags
    assert "default-src 'none'" in file.read_text(encoding="utf8")
    assert list(file.parent.iterdir()) == [file]
    drawn = "".join((PARTS / name).read_text(encoding="utf8") for name in (*page.SCRIPTS, "page.css"))
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import|fetch\(|innerHTML", drawn)


def test_text_from_a_log_is_text_on_the_page(tmp_path):
    evil = "</script><script>alert('&amp;')</script><!--"
    records = [a_record(reason=evil, phase="\ud800"), a_found_peak(reason=HOSTILE)]
    runs = [Training('"><img src=x>' + HOSTILE, records, [{"step": 1, "test_<b>$x": 1.0}]), Training(evil, [])]
    found = Page(write_page(runs, tmp_path / "page.html"))
    assert found.tags.count("script") == 3, "Vega, the data and the page's own"
    assert "img" not in found.tags
    assert [run["name"] for run in found.data["runs"]] == [r'"><img src=x>' + printable(HOSTILE), evil]
    assert found.data["runs"][0]["decisions"][0]["reason"] == evil
    assert found.data["runs"][0]["decisions"][1]["reason"] == printable(HOSTILE)
    (alone,) = [Page(write_page([runs[1]], tmp_path / "alone.html"))]
    assert alone.tags.count("script") == 3
    assert evil in alone.text


def test_the_same_trainings_give_the_same_page(tmp_path):
    pages = [write_page([Training("run", [a_found_peak(), a_probe()])], tmp_path / name).read_bytes() for name in "ab"]
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
    told = Page(write_page(trainings, tmp_path / "page.html")).data
    assert len(told["summary"]["rows"]) == len(told["runs"]) == len(trainings)
    assert [len(run["decisions"]) for run in told["runs"]] == [len(training.records) for training in trainings]


def test_a_page_of_nothing_or_to_nowhere_is_refused(tmp_path):
    with pytest.raises(ReportError, match="at least one training"):
        write_page([], tmp_path / "page.html")
    (tmp_path / "file").touch()
    with pytest.raises(ReportError, match=r"page.html: .*Name another file"):
        write_page([Training("run", [a_record()])], tmp_path / "file" / "page.html")
    with pytest.raises(ReportError, match="Name another file"):
        write_page([Training("run", [a_record()])], tmp_path)


# What the colours are for: text needs a contrast of 4.5, marks and the edges of controls need 3 (WCAG 2.2, AA).
TEXT = ("ink", "soft", "accent", "good", "bad")
MARKS = (*(f"run-{i}" for i in range(8)), "kept", "edge", "good", "bad", "ink", "accent")


def _luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one, other):
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_marks_stand_out_in_both_themes(theme):
    found = re.findall(
        r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", (PARTS / "page.css").read_text(encoding="utf8")
    )
    colours = {name: pair[theme] for name, *pair in found}
    low = {
        (name, ground): round(_contrast(colours[name], colours[ground]), 2)
        for names, least in ((TEXT, 4.5), (MARKS, 3.0)) for name in names for ground in ("page", "panel", "band")
        if _contrast(colours[name], colours[ground]) < least
    }  # fmt: skip
    assert low == {}


def test_the_page_is_made_without_matplotlib():
    assert "matplotlib" not in page.__dict__
    for name in ("page", "page_data", "findings", "search_data", "reading", "summary"):
        module = sys.modules[f"autolr.report.{name}"]
        assert not [
            value for value in vars(module).values() if getattr(value, "__module__", "").startswith("matplotlib")
        ]
