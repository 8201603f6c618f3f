"""Questions with the windows of their paragraphs that a BERT reads: ``[CLS] question [SEP] piece of paragraph [SEP]``.

Cut as run_squad of huggingface/pytorch-transformers did (after Devlin et al.'s own): pieces as long as the question
leaves room for, which begin ``stride`` tokens apart; the last one ends where the paragraph does. The tokenizer cuts
them; its own ``stride`` is what two pieces share.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from autolr_lab.workloads.workload import Batch

CLS = 0  # its position, and the target of a window without the whole answer


@dataclass(frozen=True)
class Sizes:
    """Of windows [tokens]; the defaults are the reference's."""

    window: int = 384
    stride: int = 128
    question: int = 64  # what is longer is cut off


@dataclass(frozen=True, eq=False)
class Question:
    """A question about a paragraph."""

    text: str
    paragraph: str
    answers: tuple[str, ...]  # each of them is right
    begin: int  # [characters] of the first answer in the paragraph
    end: int


@dataclass(frozen=True, eq=False)
class Window:
    """A question with a piece of its paragraph."""

    question: Question
    tokens: np.ndarray  # with [CLS] and [SEP]
    offsets: np.ndarray  # (piece's tokens, 2): where each begins and ends in the paragraph [characters]
    target: tuple[int, int]  # positions of the answer's first and last token
    # Positions of the tokens that no earlier window shows with as much context, and no later one with more.
    fullest: range = range(0)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def begin(self) -> int:
        """The position of the piece's first token."""
        return len(self.tokens) - 1 - len(self.offsets)

    def text(self, first: int, last: int) -> str:
        """The paragraph's text from the token at position ``first`` to the one at ``last``."""
        return self.question.paragraph[self.offsets[first - self.begin, 0] : self.offsets[last - self.begin, 1]]


class Windows(Dataset[Batch]):
    """Windows in memory, put together a minibatch at a time; ``pad`` fills them up to the longest of its minibatch."""

    def __init__(self, windows: Sequence[Window], pad: int = 0) -> None:
        self.windows, self.pad = list(windows), pad

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
            tokens[row, : len(window)] = window.tokens
            types[row, window.begin : len(window)] = mask[row, : len(window)] = 1
        targets = np.array([window.target for window in chosen], np.int64)
        return tuple(torch.from_numpy(a.copy()) for a in (tokens, types, mask, targets[:, 0], targets[:, 1]))


def windows_of(questions: Sequence[Question], tokenizer: Any, sizes: Sizes) -> Windows:
    """All windows of all questions, in order; ``tokenizer`` is a fast one of BERT's, of the Transformers library."""
    asked: dict[str, Any] = {"truncation": True, "max_length": sizes.question, "add_special_tokens": False}
    words = tokenizer([question.text for question in questions], **asked).encodings
    alike = defaultdict(list)  # the tokenizer's stride depends on the question's length
    for number, encoding in enumerate(words):
        alike[len(encoding.ids)].append(number)
    cut: dict[int, list[Window]] = defaultdict(list)
    for length, numbers in alike.items():
        room = sizes.window - length - 3  # for the paragraph, beside the question, [CLS] and twice [SEP]
        texts = [questions[i].text[: words[i].offsets[-1][1]] for i in numbers]
        encoded = tokenizer(
            texts, [questions[i].paragraph for i in numbers], truncation="only_second", max_length=sizes.window,
            stride=room - sizes.stride, return_overflowing_tokens=True, verbose=False,
        )  # fmt: skip
        for place, encoding in zip(encoded["overflow_to_sample_mapping"], encoded.encodings, strict=True):
            number = numbers[place]
            cut[number].append(_window(questions[number], encoding, length + 2))
    windows = [window for number in range(len(questions)) for window in _with_fullest(cut[number], sizes.stride)]
    return Windows(windows, tokenizer.pad_token_id)


def _window(question: Question, encoding: Any, begin: int) -> Window:
    first, last = (encoding.char_to_token(at, 1) for at in (question.begin, question.end - 1))
    target = (CLS, CLS) if first is None or last is None else (first, last)
    return Window(question, np.array(encoding.ids), np.array(encoding.offsets[begin:-1], int).reshape(-1, 2), target)


def _with_fullest(windows: list[Window], stride: int) -> list[Window]:
    """A question's windows, each with the stretch of tokens to which it gives the most context."""
    n = stride * (len(windows) - 1) + len(windows[-1].offsets)
    context = np.full((len(windows), n), -np.inf)
    for number, window in enumerate(windows):
        before = np.arange(len(window.offsets))
        # The reference's measure: what stands on the poorer side, and a bit for a long piece.
        row = context[number, number * stride : number * stride + len(before)]
        row[:] = np.minimum(before, before[::-1]) + 0.01 * len(before)
    # The pieces with the most context (the first of equals) follow each other as the tokens do.
    ends = np.searchsorted(context.argmax(0), np.arange(len(windows) + 1))
    found = []
    for number, window in enumerate(windows):
        shift = window.begin - number * stride
        found.append(replace(window, fullest=range(int(ends[number]) + shift, int(ends[number + 1]) + shift)))
    return found
