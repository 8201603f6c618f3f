"""From a BERT's logits to an answer in words, and how right it is: exact match and F1 of SQuAD v1.1.

The answer is chosen as in run_squad of huggingface/pytorch-transformers, and scored as in SQuAD's evaluate-v1.1
(Rajpurkar et al. 2016). The Transformers library no longer has either.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autolr_lab.workloads.squad_windows import Window

N_BEST = 20  # first tokens, and last tokens, that are looked at in a window
LONGEST = 30  # [tokens] of an answer
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Answer(NamedTuple):
    """An answer, and the logit of its first token plus that of its last."""

    score: float
    text: str


def best_answer(window: Window, starts: np.ndarray, ends: np.ndarray) -> Answer | None:
    """The answer of the highest score in one window.

    It has at most ``LONGEST`` tokens of the paragraph, and begins with a token that no other window shows in fuller
    context. Its text is the paragraph's own, between the characters where its tokens begin and end.

    Differs from the reference: that one takes whole words, and then looks for the tokens in them again.

    Args:
        window: that the model has read.
        starts: logits of each position to be the answer's first token, ``(at least the window's length,)``.
        ends: its last token.

    Returns:
        None where none of the ``N_BEST`` first and last tokens make such an answer.
    """
    first, last = (np.argsort(-logits[: len(window)], kind="stable")[:N_BEST] for logits in (starts, ends))
    scores = starts[first][:, None] + ends[last][None, :]
    a, b = first[:, None], last[None, :]
    allowed = (a >= window.fullest.start) & (a < window.fullest.stop)
    allowed = allowed & (b < len(window) - 1) & (a <= b) & (b < a + LONGEST)
    if not allowed.any():
        return None
    i, j = np.unravel_index(int(np.where(allowed, scores, -np.inf).argmax()), scores.shape)
    return Answer(float(scores[i, j]), window.text(int(first[i]), int(last[j])))


def score(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """``exact_match`` and ``f1``, from 0 to 100 as the official script has them.

    Args:
        predictions: one text a question; ``""`` where there is none.
        answers: to each question those that are right: the one that is most like the prediction counts.
    """
    exact, f1 = 0.0, 0.0
    for text, right in zip(predictions, answers, strict=True):
        exact += max(normalise(text) == normalise(one) for one in right)
        f1 += max(overlap(text, one) for one in right)
    return {"exact_match": 100 * exact / len(predictions), "f1": 100 * f1 / len(predictions)}


def overlap(text: str, answer: str) -> float:
    """F1 of the words that two texts share, each as often as both have it."""
    words, right = normalise(text).split(), normalise(answer).split()
    shared = (Counter(words) & Counter(right)).total()
    return 2 * shared / (len(words) + len(right)) if shared else 0.0


def normalise(text: str) -> str:
    """In lower case, without ASCII punctuation and without articles, one space between words."""
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())
