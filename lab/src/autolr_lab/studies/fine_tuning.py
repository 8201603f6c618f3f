"""Is `Auto` right where a trained model is trained on? ``python benchmarks/fine_tuning.py --data-dir DIR``.

Range tests are said to suggest rates a hundred times too large there. A small GPT learns WikiText-2, character by
character, and is then trained on a part of Shakespeare's plays: by Knee from each rate of a grid, by `Auto`, and by
what a range test suggests. All within one budget; the loss on plays that it was not shown decides.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.utils.data import TensorDataset

from autolr import Auto
from autolr_lab.benchmark.contest import WARM_UP
from autolr_lab.training.runs import Settings
from autolr_lab.training.training import train
from autolr_lab.workloads import WORKLOADS
from autolr_lab.workloads.shakespeare import SHAKESPEARE, SIZES, Gpt, blocks_of, load_shakespeare
from autolr_lab.workloads.workload import LanguageModel
from autolr_lab.studies.kept import highest_rate, kept_run
from autolr_lab.studies.record import markdown, new_record, write_record

PRETRAINED, FINE_TUNED = "wikitext-characters", "shakespeare-from-wikitext"
PRETRAINING_SEED = 0
GRIDS = {
    "adamw": [3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2],
    "momentum": [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1],
}


def characters_of(text: str, known: str) -> TensorDataset:
    """Blocks of tokens of ``text``, and those that follow; characters that Shakespeare does not use are left out."""
    token = {character: number for number, character in enumerate(known)}
    tokens = torch.tensor([token[c] for c in text if c in token])
    return blocks_of(tokens)


def load_wikitext(data_dir: Path | None) -> tuple[TensorDataset, TensorDataset]:
    """WikiText-2's validation text to train on (its training text is larger than this needs), its test text to test."""
    assert data_dir is not None
    known = "".join(sorted(set((data_dir / "tinyshakespeare" / "input.txt").read_text(encoding="utf8"))))
    train_text, test_text = (
        (data_dir / "wikitext-2" / name).read_text(encoding="utf8") for name in ("valid.txt", "test.txt")
    )
    return characters_of(train_text, known), characters_of(test_text, known)


def load_few_plays(data_dir: Path | None, blocks: int) -> tuple[TensorDataset, TensorDataset]:
    """So many of the 7,842 blocks that train, the first ones, and all that test."""
    plays, tested = load_shakespeare(data_dir)
    return TensorDataset(*(t[:blocks] for t in plays.tensors)), tested


def trained_gpt(path: Path) -> Gpt:
    """The network that the first training left."""
    model = Gpt(SIZES)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


def pretrain(data_dir: Path, folder: Path, epochs: int) -> dict[str, Any]:
    """Train on WikiText-2 and leave ``weights.pt``; nothing to do where that is there."""
    done = folder / "pretrained.json"
    if not done.is_file():
        torch.manual_seed(PRETRAINING_SEED)  # as a run does before it makes its network
        model = Gpt(SIZES)
        WORKLOADS[PRETRAINED] = LanguageModel(
            name=PRETRAINED, optimizer="adamw", batch_size=32, epochs=epochs, rates=SHAKESPEARE.rates,
            policy=SHAKESPEARE.policy, datasets=load_wikitext, model=lambda: model,
        )  # fmt: skip
        settings = Settings(
            workload=PRETRAINED, optimizer="adamw", schedule="knee", lr=3e-3, epochs=epochs, batch_size=32,
            seed=PRETRAINING_SEED, device="cpu", data_dir=str(data_dir), schedule_options={"warmup": WARM_UP},
        )  # fmt: skip
        result = train(settings, folder / "pretraining", resume=(folder / "pretraining").is_dir())
        torch.save(model.state_dict(), folder / "weights.pt")
        done.write_text(json.dumps(result), encoding="utf8")
    pretrained: dict[str, Any] = json.loads(done.read_text(encoding="utf8"))
    return pretrained


def fine_tune(
    data_dir: Path, folder: Path, rounds: int, optimizer: str, schedule: str, lr: float, seed: int
) -> dict[str, Any]:
    """One run from the trained weights; one that is there already is read."""
    settings = Settings(
        workload=FINE_TUNED, optimizer=optimizer, schedule=schedule, lr=lr, epochs=rounds, batch_size=32, seed=seed,
        device="cpu", data_dir=str(data_dir), measure="train_loss", equal_budget=True,
        policy={"within": True} if schedule == "auto" else {},
        schedule_options={"warmup": WARM_UP} if schedule == "knee" else {},
    )  # fmt: skip
    out = folder / f"{optimizer}-{schedule}-{lr:g}-{seed}"
    result, run = kept_run(settings, out)
    return {
        "optimizer": optimizer, "schedule": schedule, "lr": lr, "seed": seed, "peak": highest_rate(run),
        "commit": run.provenance["commit"], "result": result,
    }  # fmt: skip


def losses_table(rows: list[dict[str, Any]]) -> str:
    """A line a method and rate, a block an optimizer."""
    lines = []
    for (optimizer, schedule, lr), some in itertools.groupby(
        rows, key=lambda r: (r["optimizer"], r["schedule"], r["lr"])
    ):
        each = list(some)
        lines.append([
            optimizer, schedule, "-" if schedule != "knee" else f"{lr:g}", str(len(each)),
            " ".join(f"{r['peak']:.2g}" for r in each), _mean(each, "test_loss"), _mean(each, "final_train_loss"),
        ])  # fmt: skip
    return markdown(["optimizer", "method", "rate given", "seeds", "highest rate", "test loss", "training loss"], lines)


def _mean(rows: list[dict[str, Any]], key: str) -> str:
    """And the standard deviation, over seeds."""
    losses = [row["result"][key] for row in rows]
    if not all(loss is not None and math.isfinite(loss) for loss in losses):
        return "diverged"
    spread = f" ± {statistics.stdev(losses):.3f}" if len(losses) > 1 else ""
    return f"{statistics.fmean(losses):.3f}{spread}"


def main(
    data_dir: Annotated[Path, typer.Option(envvar="AUTOLR_DATA")],
    folder: Annotated[Path, typer.Option(help="Where runs are kept; those that are there are read.")] = Path(
        "runs/fine-tuning"
    ),
    seeds: int = 3,
    epochs: Annotated[int, typer.Option(help="Of the first training.")] = 4,
    blocks: Annotated[int, typer.Option(help="Of 128 characters, that are then trained on.")] = 800,
    rounds: Annotated[int, typer.Option(help="How often.")] = 6,
    optimizers: str = "adamw,momentum",
    record: bool = True,
) -> None:
    """Measure, print the table, and write a record."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    pretrained = pretrain(data_dir, folder, epochs)
    WORKLOADS[FINE_TUNED] = LanguageModel(
        name=FINE_TUNED, optimizer="adamw", batch_size=32, epochs=rounds, rates=SHAKESPEARE.rates,
        policy=SHAKESPEARE.policy, datasets=functools.partial(load_few_plays, blocks=blocks),
        model=lambda: trained_gpt(folder / "weights.pt"),
    )  # fmt: skip
    rows, runs = [], folder / f"{blocks}x{rounds}"
    for optimizer in optimizers.split(","):
        wanted = [("auto", SHAKESPEARE.rate(optimizer), seed) for seed in range(seeds)]
        wanted += [("knee", lr, seed) for lr in GRIDS[optimizer] for seed in range(1)]
        wanted += [("lr-finder", SHAKESPEARE.rate(optimizer), seed) for seed in range(1)]
        for schedule, lr, seed in wanted:
            rows.append(fine_tune(data_dir, runs, rounds, optimizer, schedule, lr, seed))
            last = rows[-1]
            print(optimizer, schedule, lr, seed, f"{last['peak']:.3g}", last["result"]["test_loss"], flush=True)
    table = losses_table(rows)
    print(table)
    if record:
        path = new_record("fine-tuning")
        settings = {"seeds": seeds, "epochs": epochs, "blocks": blocks, "rounds": rounds}
        write_record(path, settings | {"pretrained": pretrained, "auto": repr(Auto(within=True))}, rows, table)
        print("Record:", path)


if __name__ == "__main__":
    typer.run(main)
