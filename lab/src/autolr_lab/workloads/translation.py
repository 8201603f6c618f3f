"""German to English with an encoder-decoder Transformer: IWSLT'14 as in the paper (part 3.4), and the small Multi30k.

IWSLT'14 follows the paper's source, fairseq's example ``transformer_iwslt_de_en``: one vocabulary of byte pairs for
both languages with an embedding each, minibatches of at most 4,096 tokens, label smoothing 0.1, dropout 0.3, betas of
Adam 0.9 and 0.98, weight decay 1e-4, 50 epochs, no clipping. Its own "adam" decays weights apart from the gradient, as
torch's AdamW does: the decay stands with "adamw" here, and "adam" has the betas alone.

The loss that trains is smoothed. ``valid_loss`` is not: nats per token, perplexity its exponential (base e; fairseq's
logs have both in base 2 and the same perplexity). The test set is translated by beam search with the model of least
validation loss. Its BLEU has the name of what is compared: ``test_bleu`` is sacrebleu's default (13a) on text as it is
written, ``test_bleu_tokenised`` compares the tokens of prepared text as they are, as fairseq and the paper do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler

from autolr import ExploreExploit
from autolr_lab.workloads.beam_search import END, PAD, START, beam_search
from autolr_lab.workloads.shakespeare import ADAPTIVE
from autolr_lab.workloads.transformer import Sizes, Transformer
from autolr_lab.workloads.workload import (
    Batch,
    Workload,
    broken,
    evaluation_mode,
    find_folder,
    library,
    read_file,
    with_perplexity,
)

Split = Literal["train", "valid", "test"]
LANGUAGES = ("de", "en")
Text = tuple[list[str], list[str]]  # German, English, line by line
BETAS: dict[str, Any] = {"betas": (0.9, 0.98)}
OPTIONS = {"adam": BETAS, "adamw": BETAS | {"weight_decay": 1e-4}}


# The text.


@dataclass(frozen=True)
class Corpus:
    """Where a parallel text is and how it is written."""

    title: str
    folders: tuple[str, ...]  # of the data folder: the first that has all the files is read
    files: Mapping[Split, str]  # without the language
    vocabulary: int
    tokenised: bool  # into words and signs with spaces between them, as Moses does it
    source: str

    def read(self, data_dir: Path | None) -> dict[Split, Text]:
        """All lines, without the marks of subword-nmt (``@@``) where prepared text has them.

        Raises:
            MissingDataError: a file is missing, or the two sides differ in their number of lines.
        """
        names = [f"{name}.{language}" for name in self.files.values() for language in LANGUAGES]
        place = find_folder(data_dir, self.title, self.folders, names, self.source)
        return {split: self._read(place, name) for split, name in self.files.items()}

    def load(self, data_dir: Path | None) -> tuple[Pairs, Pairs]:
        """Training and validation pairs, as tokens.

        Raises:
            MissingDataError: as `read`, or a library that translation needs is not installed.
        """
        library("sacrebleu")  # ask at the beginning for what a run needs at its end
        text = self.read(data_dir)
        vocabulary = Vocabulary(text["train"], self)
        train, valid = (Pairs(*(vocabulary.encode(side) for side in text[split])) for split in ("train", "valid"))
        return train, valid

    def _read(self, place: Path, name: str) -> Text:
        german, english = (self._lines(read_file(place, f"{name}.{language}")) for language in LANGUAGES)
        if len(german) != len(english):
            raise broken(place / f"{name}.en", f"it has {len(english)} lines, and {name}.de {len(german)}")
        return german, english

    def _lines(self, content: bytes) -> list[str]:
        lines = content.decode("utf8").removesuffix("\n").split("\n")
        return [line.replace("@@ ", "").removesuffix("@@") for line in lines] if self.tokenised else lines


class Vocabulary:
    """Byte pairs (Sennrich et al. 2016) of the training text's two sides together, the likeliest first.

    Of bytes, so that no word is unknown. Learnt again for every run: it takes seconds, and the same text always gives
    the same one.
    """

    def __init__(self, text: Text, corpus: Corpus) -> None:
        tokenizers = library("tokenizers")
        parts, models = tokenizers.pre_tokenizers, tokenizers.models
        # A word of prepared text is whatever has spaces around it (&apos;s), in other text GPT-2's rule finds them.
        spaces = [parts.Split(" ", "merged_with_next")] if corpus.tokenised else []
        self.pairs = tokenizers.Tokenizer(models.BPE())
        self.pairs.pre_tokenizer = parts.Sequence([*spaces, parts.ByteLevel(use_regex=not corpus.tokenised)])
        self.pairs.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=corpus.vocabulary,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=parts.ByteLevel.alphabet(),
            show_progress=False,
        )
        self.pairs.train_from_iterator([*text[0], *text[1]], trainer)
        self.pairs.encode_special_tokens = True  # where a text has "<s>" in it, that is text
        assert [self.pairs.token_to_id(token) for token in ("<pad>", "<s>", "</s>")] == [PAD, START, END]

    def encode(self, lines: Sequence[str]) -> list[Tensor]:
        return [torch.tensor([*coded.ids, END]) for coded in self.pairs.encode_batch(lines)]

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        return [line.strip() for line in self.pairs.decode_batch(tokens)]


# Minibatches.


class Pairs(Dataset[Batch]):
    """Sentences and their translations; a list of indices gives a minibatch of them, padded with `PAD`.

    Args:
        sources: tokens of each sentence, `END` the last.
        targets: of its translation.
    """

    def __init__(self, sources: list[Tensor], targets: list[Tensor]) -> None:
        self.sources, self.targets = sources, [F.pad(target, (1, 0), value=START) for target in targets]

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: Sequence[int]) -> Batch:
        """Sources ``(n, s)`` and targets ``(n, t + 1)``, which begin with `START`."""
        return _padded([self.sources[i] for i in index]), _padded([self.targets[i] for i in index])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each source and of each target with its end, ``(n, 2)``."""
        return np.array([(len(a), len(b) - 1) for a, b in zip(self.sources, self.targets, strict=True)])


class TokenBatches(Sampler[Sequence[int]]):
    """Minibatches of sentences of about one length, made once; their order is drawn anew in every pass.

    Args:
        lengths: tokens of each sentence, on each side ``(n, sides)``.
        tokens: in a minibatch, at most, padding counted: its longest side's longest sentence times its sentences. A
            sentence that alone is longer is a minibatch.
        generator: of the order, and of which sentences of one length stand together; None for passes from the
            shortest to the longest.
    """

    def __init__(self, lengths: np.ndarray, tokens: int, generator: torch.Generator | None = None) -> None:
        n = len(lengths)
        first = np.arange(n) if generator is None else torch.randperm(n, generator=generator).numpy()
        by_length = first[np.lexsort(lengths[first].T[::-1])]
        longest = lengths.max(1)
        cuts, begin, so_far = [], 0, 0
        for i, length in enumerate(longest[by_length].tolist()):
            so_far = max(so_far, length)
            if i > begin and so_far * (i + 1 - begin) > tokens:
                cuts.append(i)
                begin, so_far = i, length
        self.minibatches = np.split(by_length, cuts)
        self.generator = generator

    def __len__(self) -> int:
        return len(self.minibatches)

    def __iter__(self) -> Iterator[Any]:
        if self.generator is None:
            return iter(self.minibatches)
        return (self.minibatches[i] for i in torch.randperm(len(self), generator=self.generator).tolist())


def _padded(sentences: list[Tensor]) -> Tensor:
    return pad_sequence(sentences, batch_first=True, padding_value=PAD)


# The workloads.


@dataclass(frozen=True)
class Translation(Workload):
    """Smoothed cross-entropy to train on, perplexity to choose by, BLEU in the end."""

    corpus: Corpus = field(kw_only=True)
    smoothing: float = 0.1
    beam: int = 5

    def train_batches(self, data: Any, batch_size: int, order: torch.Generator) -> DataLoader[Any]:
        return DataLoader(data, sampler=TokenBatches(data.lengths, batch_size, order), batch_size=None)

    def test_batches(self, data: Any) -> Iterable[Any]:
        return DataLoader(data, sampler=TokenBatches(data.lengths, self.batch_size), batch_size=None)

    def weight(self, batch: Batch) -> int:
        """The number of target tokens, the end of each sentence among them."""
        return int((batch[1][:, 1:] != PAD).sum())

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean over the target tokens of the smoothed cross-entropy: the truth and any token at all, 9 to 1."""
        return _cross_entropy(model, batch, "mean", self.smoothing)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: Iterable[Batch], device: torch.device) -> dict[str, float]:  # noqa: ARG002
        """Cross-entropy per target token without smoothing, and its exponential."""
        total, tokens = 0.0, 0
        with evaluation_mode(model):
            for batch in batches:
                total += float(_cross_entropy(model, batch, "sum", 0.0).double())
                tokens += self.weight(batch)
        return with_perplexity(total / tokens)

    def final(self, model: nn.Module, data_dir: Path | None, device: torch.device) -> dict[str, float]:
        text = self.corpus.read(data_dir)
        german, english = text["test"]
        translated = self.translate(model, Vocabulary(text["train"], self.corpus), german, device)
        if self.corpus.tokenised:
            return {"test_bleu_tokenised": bleu(translated, english, tokenize="none")}
        return {"test_bleu": bleu(translated, english)}

    def translate(
        self, model: nn.Module, vocabulary: Vocabulary, lines: Sequence[str], device: torch.device
    ) -> list[str]:
        """Each line in the other language: of at most 1.2 tokens for each of its own and 10 more, as in fairseq."""
        sources = vocabulary.encode(lines)
        lengths = np.array([[len(source)] for source in sources])
        found: list[list[int]] = [[] for _ in sources]
        with evaluation_mode(model), torch.no_grad():
            for minibatch in TokenBatches(lengths, self.batch_size):
                decoding = model.decode(_padded([sources[i] for i in minibatch]).to(device))  # type: ignore[operator]
                longest = torch.tensor([math.floor(1.2 * lengths[i, 0] + 10) + 1 for i in minibatch], device=device)
                for i, tokens in zip(minibatch, beam_search(decoding, longest, self.beam), strict=True):
                    found[i] = tokens
        return vocabulary.decode(found)


def _cross_entropy(model: nn.Module, batch: Batch, reduction: str, smoothing: float) -> Tensor:
    device = next(model.parameters()).device
    source, target = (tokens.to(device, non_blocking=True) for tokens in batch)
    logits = model(source, target[:, :-1]).flatten(0, 1)
    following = target[:, 1:].flatten()
    return F.cross_entropy(logits, following, ignore_index=PAD, reduction=reduction, label_smoothing=smoothing)


def bleu(translated: Sequence[str], references: Sequence[str], tokenize: str = "13a") -> float:
    """BLEU of the whole, case kept, from 0 to 100 (Papineni et al. 2002; Post 2018)."""
    # force: no word about full stops that stand apart, which they do in prepared text
    score = library("sacrebleu").corpus_bleu(translated, [references], tokenize=tokenize, force=tokenize == "none")
    return float(score.score)


_IWSLT14 = Corpus(
    title="IWSLT'14 German-English", folders=("iwslt14.tokenized.de-en", "iwslt14-de-en", "."),
    files={"train": "train", "valid": "valid", "test": "test"}, vocabulary=10_000, tokenised=True,
    source="fairseq's examples/translation/prepare-iwslt14.sh, which makes them",
)  # fmt: skip

_MULTI30K = Corpus(
    title="Multi30k", folders=("multi30k/raw", "raw", "."),
    files={"train": "train", "valid": "val", "test": "test_2016_flickr"}, vocabulary=6_000, tokenised=False,
    source="https://github.com/multi30k/dataset (data/task1/raw)",
)  # fmt: skip

IWSLT14 = Translation(
    name="iwslt14", optimizer="adamw", batch_size=4096, epochs=50,
    rates=dict.fromkeys(ADAPTIVE, 5e-5) | {"default": 0.1},  # AutoLR's seed; the paper's schedule rises to 5e-4
    options=OPTIONS, policy=ExploreExploit.from_paper("iwslt14"), corpus=_IWSLT14, datasets=_IWSLT14.load,
    model=functools.partial(Transformer, Sizes(vocabulary=_IWSLT14.vocabulary)),  # 41,783,296 parameters
    evaluated="valid", best="loss",
)  # fmt: skip

MULTI30K = Translation(
    name="multi30k", optimizer="adamw", batch_size=2048, epochs=10,
    rates=dict.fromkeys(ADAPTIVE, 2e-4) | {"default": 0.1},  # a tenth of a good peak, as the paper's seed is
    options=OPTIONS, policy=ExploreExploit.from_paper("iwslt14"), corpus=_MULTI30K, datasets=_MULTI30K.load,
    model=functools.partial(Transformer, Sizes(_MULTI30K.vocabulary, layers=4, width=128, inner=256, dropout=0.1)),
    evaluated="valid", best="loss",
)  # fmt: skip
