"""The documents' tables say what the results say, by their numbers, whatever their layout."""

from __future__ import annotations

import pytest

from autolr_lab.runner.experiment import Rendered
from autolr_lab.runner.results import Record, Results
from autolr_lab.studies import docs_tables
from autolr_lab.studies.docs_tables import (
    MARKED,
    ROOT,
    draw,
    pages,
    same_figures,
    written,
    wrong_numbers,
    wrong_pictures,
)

TABLE = "| a | n |\n| --- | --- |\n| one | 1.234 ± 0.5 |\n\n- told\n"


@pytest.fixture
def results(tmp_path):
    kept = Results(tmp_path)
    kept.add(Record("2026-12-01_old_c", "old", "a claim", {"started": "2026-12-01"}, {"x": 1}), table=TABLE)
    return kept


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_numbers_of_a_document_are_the_results(page):
    text = page.read_text(encoding="utf8")
    assert [*wrong_numbers(text, Results()), *wrong_pictures(text, ROOT / "docs" / "img", Results())] == []


def test_the_documents_have_the_tables_of_many_records():
    marked = {name for page in pages() for name, _, _ in MARKED.findall(page.read_text(encoding="utf8"))}
    assert len(marked) >= 20


def test_a_table_is_written_from_its_record_and_the_rest_is_left_alone(results):
    text = "Before.\n\n<!-- table: 2026-12-01_old_c -->\nold\n<!-- /table -->\n\nAfter.\n"
    new = written(text, results)
    assert new == f"Before.\n\n<!-- table: 2026-12-01_old_c -->\n\n{TABLE}\n<!-- /table -->\n\nAfter.\n"
    assert written(new, results) == new
    assert written(new.replace("_c -->", "_c | table -->"), results).count("1.234") == 1


def test_a_number_that_is_wrong_in_its_last_digit_is_told_and_a_layout_is_not(results):
    text = written("<!-- table: 2026-12-01_old_c -->\n<!-- /table -->\n", results)
    assert not list(
        wrong_numbers(text.replace("| one | ", "|  one  |   ").replace("- told", "- told otherwise"), results)
    )
    (told,) = wrong_numbers(text.replace("1.234", "1.235"), results)
    assert "1.235" in told
    assert "1.234" in told
    assert len(list(wrong_numbers(text.replace("| one |", "| two |"), results))) == 1
    assert "lines of tables" in next(wrong_numbers(text.replace("| one | 1.234 ± 0.5 |\n", ""), results))


@pytest.mark.parametrize(
    ("shown", "computed", "same"),
    [
        ("| 1.2 |", "| 1.234 |", True),
        ("| 1.3 |", "| 1.234 |", False),
        ("| 1,234 |", "| 1234 |", True),
        ("| 1.5e-05 |", "| 1.49e-05 |", True),
        ("| 1.5e-05 |", "| 1.5e-04 |", False),
        ("| -0.5 |", "| 0.5 |", False),
        ("| 1 of 2 |", "| 1 of 3 |", False),
        ("| 1 |", "| 1 | 2 |", False),
    ],
)
def test_numbers_agree_to_the_digits_that_are_shown(shown, computed, same):
    assert same_figures(shown, computed) is same


def test_a_picture_is_drawn_from_its_record_once_and_one_that_is_not_its_records_is_told(tmp_path, monkeypatch):
    drawn = Rendered({}, (), {"figure3.png": lambda: b"PNG"})
    monkeypatch.setattr(docs_tables, "rendered", lambda *_: drawn)
    text, results = "<!-- picture: 2026-12-01_figure3_c -->\n![falls](img/figure3.png)\n", Results(tmp_path)
    assert "is not there" in next(wrong_pictures(text, tmp_path, results))
    assert list(draw(text, tmp_path, results)) == [tmp_path / "figure3.png"]
    assert (tmp_path / "figure3.png").read_bytes() == b"PNG"
    assert list(draw(text, tmp_path, results)) == []
    assert list(wrong_pictures(text, tmp_path, results)) == []
    other = text.replace("figure3.png", "figure4.png")
    assert list(wrong_pictures(other, tmp_path, results)) == [
        "2026-12-01_figure3_c draws figure3.png; got 'figure4.png'"
    ]
    with pytest.raises(ValueError, match="on the next line"):
        list(draw(text.replace("](", "] ("), tmp_path, results))


def test_a_mark_that_leads_nowhere_is_refused(results):
    with pytest.raises(KeyError, match="There is no record"):
        written("<!-- table: 2026-12-02_new_c -->\n<!-- /table -->\n", results)
    with pytest.raises(ValueError, match="needs its"):
        written("<!-- table: 2026-12-01_old_c -->\n", results)
    with pytest.raises(ValueError, match="has the parts table; got 'summary'"):
        written("<!-- table: 2026-12-01_old_c | summary -->\n<!-- /table -->\n", results)
