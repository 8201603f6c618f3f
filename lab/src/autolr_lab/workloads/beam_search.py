"""The likeliest sentence of a model that tells the next token: beam search, as fairseq's generator does it.

A hypothesis is what stands between the start and the end token. At each step every sentence keeps the ``beam``
likeliest of its unfinished ones; of those that end, the ones that are among the ``beam`` likeliest at that step are
finished. A sentence is done when ``beam`` are, or when it is as long as it may be, where only the end may follow. The
best is the one of largest log-probability divided by its length to the power of the penalty.

Here because the Transformers library's ``generate`` searches with that library's models alone.
"""

from __future__ import annotations

import itertools
import math
from typing import Protocol

import torch
from torch import Tensor

PAD, START, END = 0, 1, 2  # the first tokens of every vocabulary


class Decoding(Protocol):
    """What a model has seen of the hypotheses under search, one row a sentence."""

    def next(self, tokens: Tensor) -> Tensor:
        """After one more token for each hypothesis ``(n, beam)``: log-probabilities ``(n, beam, vocabulary)``."""

    def keep(self, sentences: Tensor, parents: Tensor) -> None:
        """Go on with these sentences ``(m,)``, and for each with these of its hypotheses ``(m, beam)``."""


@torch.no_grad()
def beam_search(decoding: Decoding, longest: Tensor, beam: int = 5, penalty: float = 1.0) -> list[list[int]]:
    """The best hypothesis of each sentence.

    Args:
        decoding: a fresh one of n sentences.
        longest: for each sentence the largest number of tokens ``(n,)``, the end token among them, 1 or more. What
            comes out for a sentence depends on no other one.
        beam: hypotheses kept.
        penalty: of length; 0 for the plain log-probability, which likes short ones.

    Returns:
        Tokens without start and end; none at all where every probability is NaN, as of a model that diverged.
    """
    finished: list[list[tuple[float, list[int]]]] = [[] for _ in longest]
    searched = torch.arange(len(longest), device=longest.device)  # the sentence of each row
    tokens = torch.full((len(longest), beam, 1), START, device=longest.device)
    scores: Tensor | None = None  # (n, beam): log-probability of each hypothesis
    for length in itertools.count(1):
        if not len(searched):
            break
        chances = decoding.next(tokens[:, :, -1])
        chances[:, :, [PAD, START]] = -math.inf
        last = longest[searched] == length
        chances[last, :, END + 1 :] = -math.inf
        if scores is None:  # all hypotheses are the same one: the first stands for them
            scores = torch.full_like(chances[:, :, 0], -math.inf)
            scores[:, 0] = 0
        ways = (scores.unsqueeze(2) + chances).flatten(1)
        best, way = ways.topk(min(2 * beam, ways.shape[1]))  # each hypothesis ends in one way: beam of these do not
        parents, following = way // chances.shape[2], way % chances.shape[2]
        ends = following == END
        for row, place in (ends & best.isfinite())[:, :beam].nonzero().tolist():
            hypothesis = tokens[row, int(parents[row, place]), 1:].tolist()
            finished[int(searched[row])].append((float(best[row, place]) / length**penalty, hypothesis))

        best = best.masked_fill(ends, -math.inf)
        open_ends = ends.int().argsort(dim=1, stable=True)[:, :beam]  # the likeliest that do not end, in their order
        scores, parents = best.gather(1, open_ends), parents.gather(1, open_ends)
        done = torch.tensor([len(finished[sentence]) >= beam for sentence in searched.tolist()], device=last.device)
        rows = (~(done | last) & scores.isfinite().any(1)).nonzero().flatten()
        searched, scores, parents = searched[rows], scores[rows], parents[rows]
        grown = tokens[rows].gather(1, parents.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
        tokens = torch.cat([grown, following.gather(1, open_ends)[rows].unsqueeze(2)], dim=2)
        decoding.keep(rows, parents)
    return [max(hypotheses, default=(0.0, []), key=lambda scored: scored[0])[1] for hypotheses in finished]
