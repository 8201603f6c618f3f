"""``python -m autolr_lab.studies NAME --data-dir DIR``: carry out a study, and with ``--record`` keep it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from autolr_lab.runner.results import Results
from autolr_lab.studies.all_studies import STUDIES
from autolr_lab.studies.study import carry_out


def main(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(STUDIES)}.")],
    data_dir: Annotated[Path | None, typer.Option(envvar="AUTOLR_DATA")] = None,
    threads: int = 1,
    record: bool = False,
) -> None:
    """Measure, print the tables, and keep a record where that is asked for."""
    if name not in STUDIES:
        raise typer.BadParameter(f"There is no study {name!r}. There are: {', '.join(STUDIES)}.")
    torch.set_num_threads(threads)
    print("\n".join(carry_out(STUDIES[name], data_dir, Results() if record else None).values()))


if __name__ == "__main__":
    typer.run(main)
