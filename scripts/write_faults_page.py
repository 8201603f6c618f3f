"""The tables of docs/faults.md from what `make torture` measured: ``python scripts/write_faults_page.py FILE.xml ...``.

It prints them; with ``--write`` it also puts them into the page.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "faults.md"
BEGIN, END = "<!-- counts -->\n", "<!-- /counts -->"
COUNTED = {
    "interrupts": "exceptions raised at a line of a probe or a search",
    "kills": "trainings killed (SIGKILL) at a random moment, and resumed",
    "checkpoints": "checkpoints resumed to the run's end",
    "inputs": "hostile inputs: files, command lines, arguments",
    "steps": "steps soaked",
}
Case = dict[str, str]  # properties of a test, and its name and outcome


def cases_of(files: Iterable[Path]) -> list[Case]:
    """All tests of JUnit files."""
    found = []
    for file in files:
        for case in ET.parse(file).getroot().iter("testcase"):
            told = {p.get("name", ""): p.get("value", "") for p in case.iter("property")}
            failed = any(case.find(kind) is not None for kind in ("failure", "error"))
            found.append({**told, "failed": "1" if failed else "", "seconds": case.get("time", "0")})
    return found


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def counts(cases: list[Case]) -> str:
    """How often each thing was done, and in how many tests it failed."""
    done, failed = Counter[str](), Counter[str]()
    for case in cases:
        for name in COUNTED.keys() & case.keys():
            done[name] += int(case[name])
            failed[name] += bool(case["failed"])
    rows = [(text, f"{done[name]:,}", str(failed[name])) for name, text in COUNTED.items() if done[name]]
    rows.append(("tests of all kinds", f"{len(cases):,}", str(sum(bool(case["failed"]) for case in cases))))
    return table(("what", "how often", "tests that failed"), rows)


def faults(cases: list[Case]) -> str:
    """What came of each fault, by what tuned the rate."""
    told = {(case["fault"], case["tuned"]): case for case in cases if "fault" in case}
    tuned = list(dict.fromkeys(name for _, name in told))
    rows = []
    for fault in dict.fromkeys(name for name, _ in told):
        cells = [told[fault, name] for name in tuned]
        rows.append((fault, *(f"{c['finite']} / {c['learned']} of {c['runs']}" for c in cells)))
    return table(("one of these, at one step", *tuned), rows) if rows else ""


def soaks(cases: list[Case]) -> str:
    """What a long run costs."""
    heads = ("policy", "steps", "memory grown, MB", "last tenth over second, time", "µs a step", "log, kB", "decisions")
    names = ("policy", "steps", "grown_mb", "slower", "microseconds", "log_kb", "decisions")
    rows = [[case[name] for name in names] for case in cases if "grown_mb" in case]
    return table(heads, rows) if rows else ""


def tables(files: Iterable[Path]) -> str:
    """All of them."""
    cases = cases_of(files)
    return "\n".join(part for part in (counts(cases), faults(cases), soaks(cases)) if part)


def written(page: str, told: str) -> str:
    """The page with these tables."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{told}\n{END}{after}"


if __name__ == "__main__":
    told = tables(map(Path, [argument for argument in sys.argv[1:] if argument != "--write"]))
    print(told)
    if "--write" in sys.argv:
        PAGE.write_text(written(PAGE.read_text(encoding="utf8"), told), encoding="utf8")
