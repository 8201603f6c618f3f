"""Rows of a long study: kept at once, never measured twice, whole again after a cut."""

from __future__ import annotations

import json

from autolr_lab.studies.lines import Lines

KEY = ("name", "seed")


def measured(lines, name, seed, value):
    return lines.row({"name": name, "seed": seed}, lambda: {"value": value})


def test_a_row_is_in_the_file_as_soon_as_it_is_measured_with_where_it_comes_from(tmp_path):
    path = tmp_path / "folder" / "rows.jsonl"
    measured(Lines(path, KEY), "a", 0, 1.0)
    (row,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert (row["name"], row["seed"], row["value"]) == ("a", 0, 1.0)
    assert {"seconds", "commit", "torch"} <= row.keys()


def test_what_is_there_is_not_measured_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    measured(Lines(path, KEY), "a", 0, 1.0)
    lines = Lines(path, KEY)
    assert measured(lines, "a", 0, 2.0)["value"] == 1.0
    assert measured(lines, "a", 1, 3.0)["value"] == 3.0
    assert [row["value"] for row in lines.rows] == [1.0, 3.0]
    assert len(path.read_text().splitlines()) == 2


def test_a_line_that_was_cut_off_is_measured_anew_and_spoils_no_other(tmp_path):
    path = tmp_path / "rows.jsonl"
    measured(Lines(path, KEY), "a", 0, 1.0)
    path.write_text(path.read_text() + '{"name": "a", "seed": 1, "va')
    measured(Lines(path, KEY), "a", 1, 2.0)
    assert [row["value"] for row in Lines(path, KEY).rows] == [1.0, 2.0]


def test_without_a_file_rows_are_kept_in_memory():
    lines = Lines(None, KEY)
    measured(lines, "a", 0, 1.0)
    assert measured(lines, "a", 0, 2.0)["value"] == 1.0
