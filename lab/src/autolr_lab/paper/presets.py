"""Table 7: the settings of AutoLR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autolr import ExploreExploit
from autolr_lab.runner.experiment import Experiment, Rendered, RunSpec
from autolr_lab.runner.markdown import markdown_table
from autolr_lab.runner.store import Find
from autolr_lab.training.runs import Settings


@dataclass(frozen=True)
class Presets(Experiment):
    """Table 7: the policy's settings, read from the presets that users get."""

    # preset -> explore epochs, total epochs, saturation threshold, epsilon threshold, as printed.
    paper: Mapping[str, tuple[float, float, float, float]]

    def runs(self, spec: RunSpec) -> list[Settings]:  # noqa: ARG002
        """None: nothing is trained."""
        return []

    def render(self, spec: RunSpec, find: Find) -> Rendered:  # noqa: ARG002
        """The presets beside the paper's figures, and whether they agree."""
        lines, csv = [], []
        for name, (explore, total, saturation, epsilon) in self.paper.items():
            preset = ExploreExploit.from_paper(name)  # type: ignore[arg-type]
            same = (preset.explore, preset.saturation, preset.epsilon) == (explore / total, saturation, epsilon)
            lines.append([
                name, f"{preset.explore:.3g}", f"{explore:g} / {total:g}", f"{preset.saturation:g}",
                f"{saturation:g}", f"{preset.epsilon:g}", f"{epsilon:g}", "yes" if same else "NO",
            ])  # fmt: skip
            csv.append({
                "preset": name, "explore": preset.explore, "saturation": preset.saturation, "epsilon": preset.epsilon,
                "as the paper": same,
            })  # fmt: skip
        head = [
            "preset", "explore share", "the paper's epochs", "saturation", "the paper's", "epsilon", "the paper's",
            "the same",
        ]  # fmt: skip
        return Rendered({"table": markdown_table(head, lines)}, csv)
