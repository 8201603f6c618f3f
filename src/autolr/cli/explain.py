"""``autolr explain``: a log in sentences, or as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from autolr.report.explain import explain_run, explain_step
from autolr.report.logged import training_of
from autolr.runtime.run_log import read_run


def explained(log: Path, step: int | None) -> list[str]:
    """The sentences.

    Raises:
        OSError: the log cannot be read.
        ValueError: it is none of this version's, or has no such step.
    """
    run = read_run(log)
    return explain_run(run, training_of(log.stem, run)) if step is None else explain_step(run, step)


def print_explained(sentences: list[str], *, as_json: bool) -> None:
    """To standard output, each sentence from the left edge on and as wide as the terminal."""
    if as_json:
        print(json.dumps(sentences, indent=1))
        return
    from rich.console import Console
    from rich.padding import Padding

    console = Console(highlight=False, markup=False, emoji=False)
    for first, sentence in enumerate(sentences):
        console.print(Padding(sentence, (0, 0, 0, 0 if first < 2 else 2)))
