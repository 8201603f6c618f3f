"""Questions with the windows of their paragraphs that a BERT reads: ``[CLS] question [SEP] piece of paragraph [SEP]``.

Cut as run_squad of huggingface/pytorch-transformers did (after Devlin et al.'s own run_squad): pieces as long as the
question leaves room for, which begin ``stride`` tokens apart; the last one ends where the paragraph does. The
``stride`` of the tokenizers library is another thing, the tokens that two pieces share. Tokens are the library's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from autolr_lab.workloads.workload import Batch

CLS = 0  # its position, and the target of a window that does not hold the whole answer


@dataclass(frozen=True)
class Sizes:
    """Of windows [tokens]; the defaults are the reference's."""

    window: int = 384
    stride: int = 128
    question: int = 64  # what is longer is cut off

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.room(self.question):
            raise ValueError(
                f"stride must be from 1 to the {self.room(self.question)} tokens that a window of {self.window} keeps "
                f"for the paragraph beside a question of {self.question}; got {self.stride}."
            )

    def room(self, question: int) -> int:
        """How many tokens of the paragraph there are beside a question's, [CLS] and twice [SEP]."""
        return self.window - question - 3


class Asked(NamedTuple):
    """A question as the file has it."""

    id: str
    text: str
    answers: tuple[tuple[int, str], ...]  # where each begins in the paragraph [characters], and its text


class Passage(NamedTuple):
    """A paragraph with its questions, as the file has it."""

    text: str
    questions: tuple[Asked, ...]


@dataclass(frozen=True, eq=False)
class Paragraph:
    """A text and its ``n`` tokens."""

    text: str
    tokens: np.ndarray  # (n,), their numbers in the vocabulary
    offsets: np.ndarray  # (n, 2), where each begins and ends in the text [characters]

    def tokens_between(self, begin: int, end: int) -> range:
        """The tokens that have a character of ``text[begin:end]``."""
        first = np.searchsorted(self.offsets[:, 1], begin, side="right")
        return range(int(first), int(np.searchsorted(self.offsets[:, 0], end, side="left")))


@dataclass(frozen=True, eq=False)
class Question:
    """A question, cut to `Sizes.question` tokens."""

    tokens: np.ndarray
    paragraph: Paragraph
    answers: tuple[str, ...]  # each of them is right
    span: range  # the first answer's tokens in the paragraph


@dataclass(frozen=True, eq=False)
class Window:
    """A question with a piece of its paragraph."""

    question: Question
    piece: range  # the paragraph's tokens in it
    fullest: range  # those of them that no earlier window shows with as much context, and no later one with more

    def __len__(self) -> int:
        return len(self.question.tokens) + len(self.piece) + 3

    @property
    def shift(self) -> int:
        """A token's position in the window, less its place in the paragraph."""
        return len(self.question.tokens) + 2 - self.piece.start

    @property
    def target(self) -> tuple[int, int]:
        """Positions of the answer's first and last token; twice that of [CLS] where not all of it is here."""
        span, piece = self.question.span, self.piece
        if not (len(span) and piece.start <= span.start and span.stop <= piece.stop):
            return CLS, CLS
        return span.start + self.shift, span.stop - 1 + self.shift

    def text(self, first: int, last: int) -> str:
        """What the paragraph says from the token at position ``first`` to the one at ``last``, as it stands there."""
        paragraph = self.question.paragraph
        return paragraph.text[paragraph.offsets[first - self.shift, 0] : paragraph.offsets[last - self.shift, 1]]


class Windows(Dataset[Batch]):
    """Windows in memory, put together a minibatch at a time.

    Args:
        windows: in any order.
        cls: number of the token [CLS].
        sep: of [SEP].
        pad: of what fills a window up to the longest of its minibatch.
    """

    def __init__(self, windows: Sequence[Window], *, cls: int, sep: int, pad: int) -> None:
        self.windows = list(windows)
        self.cls, self.sep, self.pad = cls, sep, pad

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: Sequence[int]) -> Batch:
        """The whole minibatch that a list of indices names, as `workload.loader` asks for it.

        Returns:
            Tokens, token types (1 for the paragraph) and attention mask (0 for the padding), each ``(n, longest)``;
            positions of the answer's first and last token, each ``(n,)``.
        """
        chosen = [self.windows[i] for i in index]
        tokens = np.full((len(chosen), max(map(len, chosen))), self.pad, np.int64)
        types, mask = np.zeros_like(tokens), np.zeros_like(tokens)
        for row, window in enumerate(chosen):
            question, piece = window.question, window.piece
            begin, end = len(question.tokens) + 2, len(window)
            tokens[row, 0] = self.cls
            tokens[row, 1 : begin - 1] = question.tokens
            tokens[row, begin : end - 1] = question.paragraph.tokens[piece.start : piece.stop]
            tokens[row, [begin - 1, end - 1]] = self.sep
            types[row, begin:end] = mask[row, :end] = 1
        targets = np.array([window.target for window in chosen], np.int64)
        return tuple(torch.from_numpy(a.copy()) for a in (tokens, types, mask, targets[:, 0], targets[:, 1]))


def windows_of(articles: Iterable[Iterable[Passage]], tokenizer: Any, sizes: Sizes) -> Windows:
    """All windows of all questions, in order; ``tokenizer`` is a fast one of BERT's, of the Transformers library."""
    passages = [passage for article in articles for passage in article]
    # verbose: or it would warn of paragraphs that are longer than a BERT can read, which are cut up here.
    asked: dict[str, Any] = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    paragraphs = tokenizer([passage.text for passage in passages], **asked)
    questions = tokenizer([question.text for passage in passages for question in passage.questions], **asked)
    tokens = iter(questions["input_ids"])
    windows: list[Window] = []
    for passage, numbers, offsets in zip(passages, paragraphs["input_ids"], paragraphs["offset_mapping"], strict=True):
        paragraph = Paragraph(passage.text, np.array(numbers, int), np.array(offsets, int).reshape(-1, 2))
        for question in passage.questions:
            words = np.array(next(tokens)[: sizes.question], int)
            begin, answer = question.answers[0]
            span = paragraph.tokens_between(begin, begin + len(answer))
            windows += cut(Question(words, paragraph, tuple(text for _, text in question.answers), span), sizes)
    special = {"cls": tokenizer.cls_token_id, "sep": tokenizer.sep_token_id, "pad": tokenizer.pad_token_id}
    return Windows(windows, **special)


def cut(question: Question, sizes: Sizes) -> list[Window]:
    """The windows of a question, from the paragraph's beginning to its end."""
    n = len(question.paragraph.tokens)
    pieces = list(_pieces(n, sizes.room(len(question.tokens)), sizes.stride))
    if len(pieces) == 1:
        return [Window(question, pieces[0], pieces[0])]
    context = np.full((len(pieces), n), -np.inf)
    for row, piece in zip(context, pieces, strict=True):
        before = np.arange(len(piece))
        # The reference's measure: what stands on the poorer side, and a bit for a long piece.
        row[piece.start : piece.stop] = np.minimum(before, before[::-1]) + 0.01 * len(piece)
    richest = context.argmax(0)  # the first of equals
    # The pieces with the most context follow each other as the tokens do: each piece has its stretch.
    ends = np.searchsorted(richest, np.arange(len(pieces) + 1))
    return [Window(question, piece, range(int(a), int(b))) for piece, a, b in zip(pieces, ends, ends[1:], strict=False)]


def _pieces(n: int, room: int, stride: int) -> Iterator[range]:
    begin = 0
    while begin + room < n:
        yield range(begin, begin + room)
        begin += stride
    yield range(begin, n)
