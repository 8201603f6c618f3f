"""Table 7: the settings of AutoLR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autolr_lab.runner.experiment import (
    Ask,
    Experiment,
    Find,
    Shown,
    markdown_table,
)
from autolr.policies import ExploreExploit
from autolr.policies.explore_exploit import TABLE_7
from autolr_lab.training.runs import Settings


@dataclass(frozen=True)
class Presets(Experiment):
    """Table 7: the policy's settings, read from the presets that users get."""

    # preset -> explore epochs, total epochs, saturation threshold, epsilon threshold, as printed.
    paper: Mapping[str, tuple[float, float, float, float]]

    def cells(self, ask: Ask) -> list[Settings]:  # noqa: ARG002
        """None: nothing is trained."""
        return []

    def show(self, ask: Ask, find: Find) -> Shown:  # noqa: ARG002
        """The presets beside the paper's figures, and whether they agree."""
        lines, csv = [], []
        for name, (explore, total, saturation, epsilon) in self.paper.items():
            preset: ExploreExploit = TABLE_7[name]
            same = (preset.explore, preset.saturation, preset.epsilon) == (explore / total, saturation, epsilon)
            lines.append([
                name, f"{preset.explore:.3g}", f"{explore:g} / {total:g}", f"{preset.saturation:g}",
                f"{saturation:g}", f"{preset.epsilon:g}", f"{epsilon:g}", "yes" if same else "NO",
            ])  # fmt: skip
            csv.append({"preset": name, "explore": preset.explore, "saturation": preset.saturation,
                        "epsilon": preset.epsilon, "as the paper": same})  # fmt: skip
        head = ["preset", "explore share", "the paper's epochs", "saturation", "the paper's", "epsilon", "the paper's",
                "the same"]  # fmt: skip
        return Shown(markdown_table(head, lines), csv)
