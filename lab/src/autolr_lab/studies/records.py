"""What a record shows: computed from its own rows where its code is there, else as it was written then."""

from __future__ import annotations

from autolr_lab.benchmark import beside, given
from autolr_lab.benchmark.benchmark import BENCHMARK
from autolr_lab.benchmark.zoo_report import read_grid, read_methods, rendered
from autolr_lab.paper.paper import EXPERIMENTS
from autolr_lab.runner.experiment import Experiment, Rendered, RunSpec
from autolr_lab.runner.results import Results
from autolr_lab.runner.store import find_in_record
from autolr_lab.studies import build_up, other_lengths
from autolr_lab.studies.all_studies import STUDIES
from autolr_lab.studies.many_words import __main__ as many_words
from autolr_lab.studies.study import as_measured
from autolr_lab.zoo.store import unpack

ZOO = "zoo"  # the one that is added to, and not a record: its folder holds all rows
OF_RUNS: dict[str, Experiment] = {**EXPERIMENTS, BENCHMARK.name: BENCHMARK}


def render_record(results: Results, name: str) -> Rendered:
    """A record's tables and pictures.

    Raises:
        KeyError: there is no such record.
    """
    if name == ZOO:
        folder = results.folder / ZOO
        studies = build_up.tables(unpack(folder / build_up.PACKED.name)) | other_lengths.of_folder(folder)
        studies |= many_words.of_folder(folder)
        grid, methods = read_grid(folder), read_methods(folder)
        for lengths in other_lengths.BY_LENGTH.values():
            more = lengths.read(folder)
            grid, methods = grid + more[0], methods + more[1]
        beside_usual = {"beside": beside.table(read_methods(folder)), "given": given.table(grid, methods)}
        own = rendered(folder)
        return Rendered({**own.parts, **studies, **beside_usual}, pictures=own.pictures)
    record = results.record(name)
    if record.experiment in OF_RUNS:
        spec = RunSpec.from_json(record.spec)
        return OF_RUNS[record.experiment].render(spec, find_in_record(results, name))
    if record.experiment in STUDIES:
        return Rendered(STUDIES[record.experiment].tables(as_measured(results.rows(name))))
    return Rendered({"table": results.table(name)})
