"""The page: what it says must be what was logged, and it must say it for any training."""

import base64
from html.parser import HTMLParser

import pytest

from autolr.report import ReportError, Training, drawing, write_report
from autolr.report.summary import DASH, headline, table
from autolr.report.training_record import outcome
from autolr.report.words import label, printable
from report_inputs import HOSTILE, a_found_peak, a_probe, a_record, a_search, some_points


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(drawing, "DPI", 24)  # what is tested of a picture is what it is of


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


def test_text_from_a_file_is_harmless_in_a_terminal_and_in_a_legend():
    assert printable(HOSTILE) == r"[/]\x1b[31m$x_{<b>&\udcff"
    assert label("_a$b$") == r" _a\$b\$"


def test_every_decision_is_on_the_page_with_its_reason(tmp_path):
    records = [a_probe(10), a_record(20, to=0.125, reason="LR raised"), a_record(30, loss=None, drop_rate=None)]
    page = Page(write_report([Training("run", records)], tmp_path))
    _, first, second, third = page.tables["decisions"]
    assert first == ["10", "explore", "kept", "0.1", "0.6", "0.01 ± 0.002", "0.2 ± 0.1", "because of step 10"]
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
