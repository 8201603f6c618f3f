"""Which sentence answers the question? A trained encoder on SQuAD's development set, split by article.

A minibatch has 16 questions of one article and the 16 different sentences that hold their answers; the loss is the
cross-entropy of telling which belongs to which, both ways of a cosine similarity times 20, as is usual for such
encoders. The sentences are of one article, or the task would be solved already. 33 articles train, 5 judge, 10 are held
out: no article is in two parts. There is no training set of SQuAD at hand; this is not the SQuAD protocol.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolr_lab.studies.fine_tuning.transfer import Batch, Transfer
from autolr_lab.workloads.squad import TEST_ARTICLES, development_articles
from autolr_lab.workloads.squad_minilm import encoder_folder
from autolr_lab.workloads.workload import library

BATCH = 16  # questions
WORDS = (16, 24)  # [tokens] at most, of a question and of a sentence
EVALUATION_ARTICLES = 5
EVALUATED = 30  # minibatches on which losses are told
SHARPNESS = 20.0  # times the cosine
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)


class Encoder(nn.Module):
    """Token numbers ``(n, t)``, 0 beyond the end, to unit vectors ``(n, width)``: the mean over the tokens."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, tokens: Tensor) -> Tensor:
        there = (tokens != 0).long()
        states = self.trunk(input_ids=tokens, attention_mask=there).last_hidden_state
        weights = there.unsqueeze(2).to(states.dtype)
        return F.normalize((states * weights).sum(1) / weights.sum(1), dim=1)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of the right sentence for each question, and of the right question for each sentence."""
    questions, sentences = batch
    with torch.autocast("cpu", torch.bfloat16):  # as such encoders are trained, and twice as fast here
        vectors = [model(questions), model(sentences)]
    alike = SHARPNESS * vectors[0].float() @ vectors[1].float().T
    right = torch.arange(len(questions))
    return (F.cross_entropy(alike, right) + F.cross_entropy(alike.T, right)) / 2


def pairs_of(article: Any) -> list[tuple[str, str]]:
    """Each question with the sentence that its answer begins in."""
    return [
        (asked["question"], sentence_at(paragraph["context"], asked["answers"][0]["answer_start"]))
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
    ]


def sentence_at(text: str, place: int) -> str:
    """The sentence around a character of the text: between full stops that a space follows."""
    before = text.rfind(". ", 0, place)
    after = text.find(". ", place)
    return text[before + 2 if before >= 0 else 0 : after + 1 if after >= 0 else len(text)].strip()


def grouped(pairs: list[tuple[str, str]], order: random.Random) -> list[list[tuple[str, str]]]:
    """Groups of `BATCH` questions whose sentences all differ; what does not fill a group is left out."""
    waiting = order.sample(pairs, len(pairs))
    groups: list[list[tuple[str, str]]] = []
    while True:
        group: dict[str, tuple[str, str]] = {}
        for pair in waiting:
            if len(group) < BATCH:
                group.setdefault(pair[1], pair)
        if len(group) < BATCH:
            return groups
        taken = set(group.values())
        groups.append(list(group.values()))
        waiting = [pair for pair in waiting if pair not in taken]


def minibatches(articles: list[Any], tokenizer: Any) -> list[Batch]:
    """Of all articles, in a fixed order at random."""
    order = random.Random(0)
    groups = [group for article in articles for group in grouped(pairs_of(article), order)]
    order.shuffle(groups)
    return [
        tuple(_tokens(tokenizer, [pair[side] for pair in group], WORDS[side]) for side in (0, 1)) for group in groups
    ]


def _tokens(tokenizer: Any, texts: list[str], longest: int) -> Tensor:
    made = tokenizer(texts, truncation=True, max_length=longest, padding="longest", return_tensors="pt")
    return torch.as_tensor(made["input_ids"])


def questions(data_dir: Path | None) -> Transfer:
    """The task.

    Raises:
        MissingDataError: the questions, transformers or the encoder are missing.
    """
    articles = development_articles(data_dir)
    trunk, tokenizer = encoder()
    ends = (-TEST_ARTICLES - EVALUATION_ARTICLES, -TEST_ARTICLES)
    parts = (articles[: ends[0]], articles[ends[0] : ends[1]], articles[ends[1] :])
    train, evaluation, held_out = (minibatches(part, tokenizer) for part in parts)
    return Transfer(
        "questions", "sentence encoder, 22M parameters: which sentence answers", Encoder(trunk), loss, train,
        evaluation, held_out[:EVALUATED], RATES,
    )  # fmt: skip


def encoder() -> tuple[nn.Module, Any]:
    """all-MiniLM-L6-v2 and its tokenizer, from the package that carries them.

    Raises:
        MissingDataError: a package is missing.
    """
    transformers = library("transformers")
    place = encoder_folder()
    return transformers.AutoModel.from_pretrained(place), transformers.AutoTokenizer.from_pretrained(place)
