"""The records say what their rows say, by the code as it is now; and each benchmark runs end to end on little."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
BENCH = BENCHMARKS / "records" / "2026-11-25_bench_481b2afe0845"  # that the record of peaks stands beside
TABLES = {
    "fit-quality": ("fit_quality", lambda module, rows: module.range_table(rows) + "\n" + module.spread_table(rows)),
    "rollback-rules": ("rollback_rules", lambda module, rows: module.rule_table(rows)),
    "overhead": (
        "overhead",
        lambda module, rows: module.overhead_table(rows, list(dict.fromkeys(r["ground"] for r in rows))),
    ),
    "same-verdicts": ("same_verdicts", lambda module, rows: module.verdict_table(rows)),
    "profile-look": ("profile_look", lambda module, rows: module.look_table(rows) + "\n" + module.vmap_table(rows)),
    "coverage": ("coverage", lambda module, rows: module.coverage_table(rows)),
    "peaks": ("peaks", lambda module, rows: module.peaks_table(rows, module.best_peaks(BENCH))),
}
# Of the same name and another form: what `overhead` measured before there was a budget. Kept, as records are.
ELDERS = {"2026-11-23_overhead_4136b420b81a"}


@pytest.fixture
def benchmark_named(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("name", TABLES)
def test_a_record_s_table_is_what_its_rows_say_under_the_present_code(benchmark_named, name):
    # Of the rollback rules it holds the policy as it is today against what was measured then.
    records = [path for path in sorted((BENCHMARKS / "records").glob(f"*_{name}_*")) if path.name not in ELDERS]
    assert records
    module, table = benchmark_named(TABLES[name][0]), TABLES[name][1]
    for record in records:
        rows = json.loads((record / "record.json").read_text(encoding="utf8"))["rows"]
        for row in rows:
            row.update({key: float("nan") for key, value in row.items() if value is None})  # as JSON has it
        assert table(module, rows) == (record / "table.md").read_text(encoding="utf8"), record


def test_every_record_says_where_it_comes_from():
    for path in (BENCHMARKS / "records").glob("*/record.json"):
        record = json.loads(path.read_text(encoding="utf8"))
        assert {"machine", "torch", "python"} <= record["provenance"].keys(), path
        assert record["settings"], path


def test_a_comparison_runs_what_is_missing_reuses_what_is_there_and_records_it(benchmark_named, tmp_path, monkeypatch):
    compare = benchmark_named("compare")
    monkeypatch.setattr(compare, "OPTIMIZERS", ("sgd",))
    monkeypatch.setattr(benchmark_named("record"), "RECORDS", tmp_path / "records")
    asked = {
        "data_dir": None,
        "epochs": 1,
        "seeds": 2,
        "jobs": 1,
        "runs": tmp_path / "runs",
        "variants": "fixed;autolr",
    }
    compare.main("digits", **asked)
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/result.json")}
    assert len(runs) == 4
    compare.main("digits", **asked)
    assert runs == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/result.json")}
    first, second = sorted((tmp_path / "records").iterdir())
    assert (first / "table.md").read_text() == (second / "table.md").read_text()
    rows = json.loads((first / "record.json").read_text())["rows"]
    assert sorted((row["variant"], row["settings"]["seed"]) for row in rows) == [
        ("autolr", 0), ("autolr", 1), ("fixed", 0), ("fixed", 1),
    ]  # fmt: skip
    assert all("data_dir" not in row["settings"] and row["provenance"]["commit"] for row in rows)
