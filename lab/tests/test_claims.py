"""What the documents' text claims is what the results say, number by number; and a claim that is wrong is told."""

from __future__ import annotations

import re

import pytest

from autolr_lab.runner.results import Record, Results
from autolr_lab.studies import claims
from autolr_lab.studies.docs_tables import ROOT, pages

TABLE = """| method | gain | 95 % interval |
| --- | --- | --- |
| ours | +3.863 | +1.383 to +6.344 |
| theirs | -0.127 | -0.2 to +1.5 |
"""
NAME = "2026-12-01_gains_c"
SAYS = "It gains 3.9 points (1.4 to 6.3), 4.0 more than theirs, -0.13.\n"
FROM = f"""<!-- claims {NAME}: 3.9 = gain [ours]; 1.4 = 95 % interval [ours]; 6.3 = 95 % interval #2 [ours];
4.0 = gain [ours] - [theirs]; -0.13 = gain [theirs] -->
"""


@pytest.fixture
def results(tmp_path):
    kept = Results(tmp_path / "results")
    kept.add(Record(NAME, "gains", "a claim", {"started": "2026-12-01"}, {}), table=TABLE)
    return kept


@pytest.fixture
def told(tmp_path, monkeypatch, results):
    page = tmp_path / "page.md"
    monkeypatch.setattr(claims, "COVERED", (page,))

    def tell(text):
        page.write_text(text, encoding="utf8")
        return list(claims.wrong_claims(page, results))

    return tell


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_claims_is_what_the_results_say(page):
    assert list(claims.wrong_claims(page, Results())) == []


def test_a_right_claim_holds(told):
    assert told(SAYS + FROM) == []


@pytest.mark.parametrize(
    ("was", "now", "why"),
    [
        ("3.9", "3.8", "the results have 3.863"),
        ("3.9", "-3.9", "the results have 3.863"),
        ("4.0", "4.1", "the results have 3.99"),
        ("6.3", "6.30", "the results have 6.344"),
        ("[ours];", "[nobody's];", "0 lines of"),
        ("gain [ours];", "loss [ours];", "0 lines of"),
        ("interval #2", "interval #3", "is '.1.383 to .6.344' there"),
    ],
)
def test_a_wrong_claim_is_told(told, was, now, why):
    (first, *_) = told((SAYS + FROM).replace(was, now))
    assert re.search(why, first)


def test_a_number_without_a_source_is_told_unless_it_says_why(told):
    assert len(told(SAYS)) == 5
    assert "7.5 has no source" in told(SAYS + FROM + "\nAnd 7.5 besides.\n")[0]
    assert told(SAYS + FROM + "\nAnd 7.5 besides, 5 times.\n<!-- no record: 7.5, by hand -->\n") == []
    assert told("```\n7.5\n```\n\n`7.5` and [a link](7.5.md)\n\n# 7.5\n") == []


def test_a_claim_of_what_the_text_does_not_say_is_told(told):
    assert told("It gains much.\n" + FROM.replace("4.0", "4.0"))[0].endswith("claimed, and not in its paragraph")


def test_a_claim_of_another_form_is_refused(told):
    with pytest.raises(ValueError, match=r"A claim is NUMBER = COLUMN \[CELL \| CELL\]; got '3.9 is the gain'"):
        told(f"It gains 3.9.\n<!-- claims {NAME}: 3.9 is the gain -->\n")
    assert "There is no record" in told("It gains 3.9.\n<!-- claims 2026-12-02_no_c: 3.9 = gain [ours] -->\n")[0]
