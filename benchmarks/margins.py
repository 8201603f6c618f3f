"""How near are the constants of `Auto`'s longer trials to another verdict?

``python benchmarks/margins.py RECORD...``: from records of peaks (`peaks.py`), which keep every trial's end, and
without a run. What the best shorter trial gained and left, beside a longer one, tells a network that learns on from one
that is stuck; where it is stuck, the share that is enough says which peak is taken.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import typer
from matplotlib.patches import Rectangle

from autolr.policies import trials
from peaks import held_against_the_longer

SHARES = [0.7 + 0.01 * k for k in range(29)]  # that could be enough


def longer_searches(records: list[Path]) -> list[dict[str, Any]]:
    """Those in which a longer trial was made."""
    rows = [row for path in records for row in json.loads((path / "record.json").read_text(encoding="utf8"))["rows"]]
    return [row for row in rows if len(row.get("lengths", ())) > 1]


def peak_at(row: dict[str, Any], share: float) -> float:
    """[lr] that a search which was stuck would find, were that share enough; NaN: it would have tried lower ones."""
    ended = [(rate, math.inf if loss is None else loss) for rate, loss in row["lengths"][-1]]
    peak = trials.low_end(ended, row["start"], share)
    return math.nan if peak == min(rate for rate, _ in ended) else peak


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Left, all searches by the two measures, what counts as stuck being shaded; right, the peaks of those that are."""
    figure, (level, enough) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    contests = list(dict.fromkeys((row["workload"], row["optimizer"]) for row in rows))
    for color, contest in enumerate(contests):
        some = [row for row in rows if (row["workload"], row["optimizer"]) == contest]
        gained, left = zip(*map(held_against_the_longer, some), strict=True)
        level.scatter(gained, left, label=", ".join(contest), color=f"C{color}", s=24)
        for row in some:
            if len(row["lengths"][1]) > 1:
                enough.plot(SHARES, [peak_at(row, share) for share in SHARES], color=f"C{color}", linewidth=1)
    corner = (trials.STUCK, 0.9)
    level.add_patch(Rectangle(corner, 1 - trials.STUCK, 1 + trials.ABOVE - corner[1], color="0.88", zorder=0))
    level.set(
        xlim=(None, 1), ylim=(corner[1], None), yscale="log",
        xlabel="gained by the best shorter trial, of what the longer one gained",
        ylabel="left by it, of what that one left",
    )  # fmt: skip
    level.set_yticks([1, 1.1, 1.5, 2, 3, 4], labels=["1", "1.1", "1.5", "2", "3", "4"])
    level.minorticks_off()
    level.legend(fontsize="small")
    enough.axvline(trials.ENOUGH, color="0.8", zorder=0)
    enough.set(yscale="log", xlabel="share of the best longer trial's gain that is enough", ylabel="peak found")
    peaks = [0.0004, 0.0006, 0.001, 0.0015]
    enough.set_yticks(peaks, labels=[f"{peak:g}" for peak in peaks])
    enough.minorticks_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(
    records: Annotated[list[Path], typer.Argument(help="Of peaks.")],
    picture: Annotated[Path, typer.Option()] = Path("docs/img/auto_longer.png"),
) -> None:
    """Draw."""
    draw(longer_searches(records), picture)
    print(picture)


if __name__ == "__main__":
    typer.run(main)
