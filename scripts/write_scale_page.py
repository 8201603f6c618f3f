"""Writes the table of docs/scale.md from `autolr.numerics.scale`: ``python scripts/write_scale_page.py``."""

from __future__ import annotations

from pathlib import Path

from autolr.cli.plan import amount
from autolr.numerics.scale import Training, gathering_seconds, plan_parts

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
BEGIN, END = "<!-- scale -->\n", "<!-- /scale -->"
SIZES = (
    Training(1e7, 2e8, 65_536, 1, "ddp"),
    Training(1e8, 2e9, 262_144, 8, "ddp"),
    Training(1e9, 2e10, 1_048_576, 64, "hsdp"),
    Training(7e9, 2e12, 4_194_304, 1_024, "fsdp"),
    Training(7e10, 1.5e13, 16_777_216, 8_192, "fsdp"),
    Training(4e11, 1.6e13, 16_777_216, 16_384, "fsdp"),
    Training(1e12, 2e13, 67_108_864, 100_000, "fsdp"),
)
HEADS = (
    "parameters", "tokens", "GPUs", "steps", "search, of the run", "search, GPU hours", "guard, of the run",
    "a trial, of the run", "search, on a GPU", "a trial, on a GPU", "guard, on its host", "a gathering, of a step",
)  # fmt: skip


def table() -> str:
    """In Markdown."""
    lines = [f"| {' | '.join(HEADS)} |", f"| {' | '.join('---' for _ in HEADS)} |"]
    for size in SIZES:
        parts = {part.name: part for part in plan_parts(size)}
        search, guard, trial = parts["search"], parts["guard"], parts["a trial"]
        cells = (
            amount(size.params), amount(size.tokens), f"{size.gpus:,} {size.strategy}", f"{size.steps:,}",
            f"{search.share:.2%}", f"{search.gpu_hours:,.3g}", f"{guard.share:.3%}", f"{trial.share:.2%}",
            f"{amount(search.device_bytes)}B", f"{amount(trial.device_bytes)}B", f"{amount(guard.host_bytes)}B",
            f"{gathering_seconds(size.gpus) / size.step_seconds:.2%}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cell.strip() for cell in cells)} |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """The page with the table of now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf8")), encoding="utf8")
