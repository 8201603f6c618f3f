"""Rows of words: names that Python carries, languages drawn from a fixed seed, and public texts where they are at hand.

A word's number tells how frequent it is among the training's words; 0 stands for all that are rare, or for a gap.
"""

from __future__ import annotations

import gzip
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from autolr_lab.zoo.data import drawing, hold_out
from autolr_lab.zoo.task import Batch, Data

HELD_OUT = 300  # rows


def folder() -> Path:
    """Of the public texts."""
    return Path(os.environ.get("AUTOLR_DATA", "../shared/data"))


def numbered(words: Sequence[str], most: int) -> Tensor:
    """Numbers below ``most``: 1 is the most frequent word, 0 any rare one."""
    index = {word: number for number, (word, _) in enumerate(Counter(words).most_common(most - 1), start=1)}
    return torch.tensor([index.get(word, 0) for word in words])


def cut(tokens: Tensor, length: int) -> Tensor:
    """Rows of ``length``, one after the other."""
    return tokens[: len(tokens) // length * length].view(-1, length)


@cache
def names(words: int = 2000, length: int = 17) -> Data:
    """Names of characters in version 3.2 of Unicode, which never changes, word by word."""
    found = (unicodedata.ucd_3_2_0.name(chr(point), "") for point in range(0x2FFF))
    text = " ; ".join(name for name in found if name and not any(c.isdigit() for c in name))
    return hold_out((numbered(text.split(), words).unfold(0, length, 8).contiguous(),), HELD_OUT, "names by words")


@cache
def text(path: str, words: int, length: int = 33) -> Data:
    """A file of plain text, split at spaces."""
    tokens = numbered((folder() / path).read_text(encoding="utf8").split(), words)
    return hold_out((cut(tokens, length),), HELD_OUT, path)


@cache
def questions(words: int = 4000, length: int = 17) -> Data:
    """SQuAD's questions, one after the other."""
    with gzip.open(folder() / "squad/dev-v1.1-reconstructed.json.gz", "rt", encoding="utf8") as file:
        articles = json.load(file)["data"]
    asked = (q["question"] for article in articles for part in article["paragraphs"] for q in part["qas"])
    return hold_out((cut(numbered(" ".join(asked).lower().split(), words), length),), HELD_OUT, "questions")


def zipf(rows: int, length: int, words: int, generator: torch.Generator) -> Tensor:
    """Words drawn by themselves, their chance one over their rank."""
    chances = 1 / (torch.arange(words) + 2.0)
    return torch.multinomial(chances, rows * length, replacement=True, generator=generator).view(rows, length)


@cache
def chain(words: int = 2000, length: int = 25, rows: int = 6000) -> Data:
    """Each word has four successors of its own, of unequal chances."""
    generator = drawing("chain of words")
    following = zipf(words, 4, words, generator)
    tokens = zipf(rows, length, words, generator)
    for place in range(1, length):
        which = torch.multinomial(torch.tensor([0.6, 0.2, 0.15, 0.05]), rows, replacement=True, generator=generator)
        tokens[:, place] = following[tokens[:, place - 1], which]
    return hold_out((tokens,), HELD_OUT, "chain of words")


@cache
def turned(words: int = 2000, length: int = 12, rows: int = 12_000) -> Data:
    """Sentences, and the same backwards in another language: each word has one word there. 0 to 2 are signs."""
    generator = drawing("turned sentences")
    source = zipf(rows, length, words, generator) + 3
    other = torch.randperm(words, generator=generator) + 3
    return hold_out((source, _begun(other[source.flip(1) - 3])), HELD_OUT, "turned sentences")


@cache
def pairs(path: str, source: str, target: str, words: int = 3000, length: int = 16) -> Data:
    """Sentences and their translations, cut to ``length``; 0 is what follows a sentence, 3 any rare word."""
    sides = []
    for language in (source, target):
        with gzip.open(folder() / path.format(language), "rt", encoding="utf8") as file:
            sides.append(_padded((line.split()[:length] for line in file), words, length))
    return hold_out((sides[0], _begun(sides[1])), HELD_OUT, path)


def _padded(lines: Iterable[list[str]], words: int, length: int) -> Tensor:
    lines = list(lines)
    common = Counter(word for line in lines for word in line).most_common(words)
    index = {word: number for number, (word, _) in enumerate(common, start=4)}
    rows = torch.zeros(len(lines), length, dtype=torch.long)
    for row, line in zip(rows, lines, strict=True):
        row[: len(line)] = torch.tensor([index.get(word, 3) for word in line], dtype=torch.long)
    return rows


def _begun(target: Tensor) -> Tensor:
    """With the sign that begins a sentence, 1."""
    return torch.cat([torch.ones(len(target), 1, dtype=torch.long), target], dim=1)


def gaps(data: Data, share: float = 1 / 6) -> Data:
    """Rows with gaps, and what stood there; places without one are to be left out of the loss."""

    def hidden(rows: Batch) -> Batch:
        (tokens,) = rows
        hide = torch.rand(tokens.shape, generator=drawing("gaps")) < share
        hide[:, 0] |= ~hide.any(1)
        return tokens.masked_fill(hide, 0), torch.where(hide, tokens, -100)

    return Data(hidden(data.train), hidden(data.held_out))


@cache
def names_with_gaps(length: int = 17) -> Data:
    """Of which the words are to be found that are missing."""
    return gaps(names(length=length))


@cache
def topics(words: int = 2000, length: int = 16, rows: int = 8000) -> Data:
    """Half of a row's words are its topic's, of forty; with gaps."""
    generator = drawing("topics")
    topic = torch.randint(40, (rows, 1), generator=generator)
    own = torch.stack([torch.randperm(words, generator=generator) for _ in range(40)])
    special = own[topic, zipf(rows, length, words, generator).square() % words]
    common = zipf(rows, length, words, generator)
    tokens = torch.where(torch.rand(rows, length, generator=generator) < 0.5, special, common) + 1
    return gaps(hold_out((tokens,), HELD_OUT, "topics"))
