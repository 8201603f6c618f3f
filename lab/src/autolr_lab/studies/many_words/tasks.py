"""Sixteen tasks of many words: eight that the guard's comparison was made with, and eight that it was not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from autolr_lab.studies.many_words import text
from autolr_lab.workloads.beam_search import PAD
from autolr_lab.workloads.transformer import Sizes, Transformer
from autolr_lab.zoo.attention import PostNorm, TokenTransformer
from autolr_lab.zoo.blocks import next_token, transformer_block
from autolr_lab.zoo.task import Batch, Task, usual

STEPS = 800


class Recurrent(nn.Module):
    """Two layers over embeddings, and scores for each word at each place."""

    def __init__(self, words: int, cell: Callable[..., nn.Module], width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.cell = cell(width, width, 2, batch_first=True)
        self.head = nn.Linear(width, words)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, length) to (n, length, words)."""
        scores: Tensor = self.head(self.cell(self.embed(tokens))[0])
        return scores


def post(words: int, length: int, layers: int = 4, width: int = 64, *, causal: bool = True) -> nn.Module:
    """Normalised after each part."""
    return TokenTransformer(words, length, width, [PostNorm(width, 4, causal) for _ in range(layers)])


def pre(words: int, length: int, layers: int = 3, width: int = 64) -> nn.Module:
    """Normalised before each part."""
    return TokenTransformer(words, length, width, [transformer_block(width, 4, causal=True) for _ in range(layers)])


def translator(words: int, layers: int = 3) -> nn.Module:
    """Encoder and decoder, as for Multi30k, and smaller."""
    return Transformer(Sizes(words, layers=layers, width=64, inner=128, dropout=0.1))


def translate(model: nn.Module, batch: Batch) -> Tensor:
    """Smoothed cross-entropy of each word that follows."""
    source, target = batch
    scores = model(source, target[:, :-1]).flatten(0, 1)
    return F.cross_entropy(scores, target[:, 1:].flatten(), label_smoothing=0.1, ignore_index=PAD)


def fill(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of the words in the gaps."""
    tokens, missing = batch
    return F.cross_entropy(model(tokens).flatten(0, 1), missing.flatten())


MULTI30K, IWSLT = "multi30k/tok/train.lc.norm.tok.{}.gz", "iwslt14-de-en/test.{}.gz"
WIKI, WIKI_VALID, PLAYS = "wikitext-2/test.txt", "wikitext-2/valid.txt", "tinyshakespeare/input.txt"

task = partial(Task, kind="words", rates=usual(), horizons=(STEPS,))
rows = partial(task, loss=next_token, batch_size=8)

SEEN = (
    rows(name="names-post", data=text.names, build=partial(post, 2000, 16), batch_size=32),
    rows(name="wiki-post", data=partial(text.text, WIKI, 4000), build=partial(post, 4000, 32)),
    task(name="turned", data=text.turned, build=partial(translator, 2003), loss=translate, batch_size=32),
    rows(name="chain-pre", data=text.chain, build=partial(pre, 2000, 24), batch_size=16),
    task(
        name="to-english", data=partial(text.pairs, MULTI30K, "de", "en"), build=partial(translator, 3004),
        loss=translate, batch_size=32,
    ),
    rows(name="wiki-lstm", data=partial(text.text, WIKI, 4000), build=partial(Recurrent, 4000, nn.LSTM)),
    rows(name="plays-pre", data=partial(text.text, PLAYS, 3000), build=partial(pre, 3000, 32)),
    task(
        name="topics-post", data=text.topics, build=partial(post, 2001, 16, causal=False), loss=fill, batch_size=32,
    ),
)  # fmt: skip

APART = (
    task(
        name="names-gaps", data=text.names_with_gaps, build=partial(post, 2000, 17, causal=False), loss=fill,
        batch_size=32,
    ),
    rows(name="plays-post", data=partial(text.text, PLAYS, 3000), build=partial(post, 3000, 32)),
    rows(name="questions-post", data=text.questions, build=partial(post, 4000, 16), batch_size=16),
    task(
        name="talks-to-english", data=partial(text.pairs, IWSLT, "de", "en", 2000), build=partial(translator, 2004, 2),
        loss=translate, batch_size=32,
    ),
    rows(name="chain-post", data=partial(text.chain, 1500, 17), build=partial(post, 1500, 16, 6), batch_size=32),
    task(
        name="to-german", data=partial(text.pairs, MULTI30K, "en", "de", 2000, 12), build=partial(translator, 2004, 4),
        loss=translate, batch_size=32,
    ),
    rows(name="wiki-gru", data=partial(text.text, WIKI_VALID, 3000), build=partial(Recurrent, 3000, nn.GRU)),
    rows(name="wiki-pre", data=partial(text.text, WIKI_VALID, 3000), build=partial(pre, 3000, 32, 4, 96)),
)  # fmt: skip
