"""A small GPT, trained on WikiText-2's characters, goes on to Shakespeare's plays."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolr.schedules import PeakSchedule
from autolr_lab.studies.fine_tuning.transfer import Batch, Transfer
from autolr_lab.workloads.shakespeare import FILE, Gpt, Sizes
from autolr_lab.workloads.workload import find_folder, read_file

BATCH, BLOCK = 16, 64
SIZES = Sizes(vocabulary=97, block=BLOCK, layers=4, heads=4, width=128)
FIRST_STEPS, FIRST_PEAK = 1500, 3e-3  # of the training on the first text
SHARES = (0.1, 0.02, 0.05)  # of the second text: to train on, to judge, held out; little, as in fine-tuning
RATES = (3e-5, 1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3, 6.4e-3, 1.28e-2)


def encoded(text: str) -> Tensor:
    """Printable ASCII and the newline as numbers 0 to 95; accents are left out, all else is 96."""
    plain = unicodedata.normalize("NFKD", text)
    numbers = [95 if c == "\n" else ord(c) - 32 if 32 <= ord(c) < 127 else 96 for c in plain]
    return torch.tensor(numbers)


def minibatches(tokens: Tensor, seed: int) -> list[Batch]:
    """Blocks that do not overlap, in a fixed order at random: tokens ``(16, 64)`` and those that follow each."""
    count = (len(tokens) - 1) // BLOCK
    rows = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: count // BATCH * BATCH]
    x, y = (tokens[shift : shift + count * BLOCK].view(count, BLOCK)[rows] for shift in (0, 1))
    return list(zip(torch.split(x, BATCH), torch.split(y, BATCH), strict=True))


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of the next character."""
    x, y = batch
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


def texts(data_dir: Path | None, first_steps: int = FIRST_STEPS, kept: Path | None = None) -> Transfer:
    """The task, after the first training, whose weights are taken from the file ``kept`` or put there.

    Raises:
        MissingDataError: a text is missing.
    """
    wiki = find_folder(
        data_dir,
        "WikiText-2",
        ("wikitext-2",),
        ("valid.txt",),
        "https://github.com/pytorch/examples (word_language_model)",
    )
    plays = find_folder(
        data_dir, "Tiny Shakespeare", ("tinyshakespeare", "."), (FILE,), "https://github.com/karpathy/char-rnn"
    )
    tokens = encoded(read_file(plays, FILE).decode("utf8"))
    ends = [int(sum(SHARES[:i]) * len(tokens)) for i in range(len(SHARES) + 1)]
    # From the end of the text: its parts are of different plays.
    train, evaluation, held_out = (
        minibatches(tokens[len(tokens) - high : len(tokens) - low], 1) for low, high in itertools.pairwise(ends)
    )
    if kept is not None and kept.exists():
        model: nn.Module = Gpt(SIZES)
        model.load_state_dict(torch.load(kept, weights_only=True))
    else:
        model = first_training(encoded(read_file(wiki, "valid.txt").decode("utf8")), first_steps)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), kept)
    return Transfer(
        "texts", "GPT, 0.8M parameters: from WikiText-2 to Shakespeare", model, loss, train, evaluation, held_out,
        RATES,
    )  # fmt: skip


def first_training(tokens: Tensor, steps: int) -> nn.Module:
    """A GPT trained on a text; always the same one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Gpt(SIZES)
    batches = minibatches(tokens, 0)
    optimizer = torch.optim.AdamW(model.parameters(), FIRST_PEAK, fused=True)
    schedule = PeakSchedule(optimizer, FIRST_PEAK, steps)
    for step in range(steps):
        optimizer.zero_grad()
        loss(model, batches[step % len(batches)]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return model
