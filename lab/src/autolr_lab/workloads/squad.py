"""SQuAD v1.1 with a BERT that is fine-tuned (part 3.3; its source: huggingface/pytorch-transformers), and a small one.

As run_squad there: windows of 384 tokens, 128 apart, questions of at most 64; the loss is the mean of the
cross-entropies of the answer's first and last token; a window without the whole answer is to point at [CLS]; gradients
of norm 1 at most; Adam without weight decay. Differs from it: padding goes up to the longest window of a minibatch,
and the loss leaves it out, so that a window's loss is its own whatever it is batched with.

The paper does not say the minibatch: 2,500 steps were 0.45 epochs (part 3.3 and Table 7), which is 16 of about 88,600
windows a step. Its baseline ran for 3 epochs with linear decay, AutoLR for 2.

``squad-small`` is another task, for a machine without a GPU, a training set or trained weights: a BERT from nothing
on the development set, its last 10 articles kept for the test. It learns little of it in so few questions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolr import ExploreExploit
from autolr_lab.workloads.shakespeare import ADAPTIVE
from autolr_lab.workloads.squad_answers import Answer, best_answer, score
from autolr_lab.workloads.squad_windows import Question, Sizes, Window, Windows, windows_of
from autolr_lab.workloads.workload import (
    Batch,
    MissingDataError,
    Workload,
    broken,
    data_root,
    evaluation_mode,
    find_folder,
    library,
    read_file,
    there,
)

TRAIN, DEV, RECONSTRUCTED = "train-v1.1.json", "dev-v1.1.json", "dev-v1.1-reconstructed.json"
SOURCE = "https://rajpurkar.github.io/SQuAD-explorer/"
TEST_ARTICLES = 10  # of the development set, where it has to do for everything
EVALUATED = 64  # windows at once
BERT, HUB = "bert-base-uncased", "google-bert/bert-base-uncased"  # a folder, and a name on Hugging Face's hub
VOCABULARY, WORDS = "bert-base-uncased-vocab.txt", 30_522
SMALL = Sizes(window=256, stride=64)
NO_DECAY = {"adamw": {"weight_decay": 0.0}}


@dataclass(frozen=True)
class QuestionAnswering(Workload):
    """Where in a paragraph the answer begins and ends; a minibatch is what `Windows` gives."""

    pretrained: bool = False

    def network(self, data_dir: Path | None) -> nn.Module:
        """BERT base with trained weights and a fresh last layer, where they are asked for; else `model`.

        Raises:
            MissingDataError: there are no weights in the data's folder, nor can they be got from the hub.
        """
        if not self.pretrained:
            return self.model()
        network: nn.Module = _from_pretrained(library("transformers").BertForQuestionAnswering, data_dir)
        return network

    def test_batches(self, data: Any) -> Iterable[Any]:
        """Minibatches of windows of about one length, each with the windows that it was made of."""
        return Evaluated(data)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        starts, ends, first, last = _read(model, batch, next(model.parameters()).device)
        return (F.cross_entropy(starts, first) + F.cross_entropy(ends, last)) / 2

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: Iterable[Any], device: torch.device) -> dict[str, float]:
        """Mean loss over windows (the first of the right answers), and over questions exact match and F1, 0 to 100."""
        total, windows = 0.0, 0
        best: dict[Question, Answer] = {}
        with evaluation_mode(model):
            for batch, read in batches:
                starts, ends, first, last = _read(model, batch, device)
                losses = (F.cross_entropy(*pair, reduction="sum") for pair in ((starts, first), (ends, last)))
                total += float(sum(loss.double() for loss in losses)) / 2
                windows += len(read)
                for window, *logits in zip(read, starts.float().cpu().numpy(), ends.float().cpu().numpy(), strict=True):
                    found = best_answer(window, *logits) or Answer(-np.inf, "")
                    before = best.setdefault(window.question, found)
                    if found.score > before.score:
                        best[window.question] = found
        scores = score([answer.text for answer in best.values()], [question.answers for question in best])
        return {"loss": total / windows, **scores}


@dataclass(frozen=True)
class Evaluated:
    """Minibatches to evaluate on: the longest windows first, so that there is little padding."""

    data: Windows

    def __iter__(self) -> Iterator[tuple[Batch, list[Window]]]:
        windows = self.data.windows
        order = sorted(range(len(windows)), key=lambda i: -len(windows[i]))
        for begin in range(0, len(order), EVALUATED):
            chosen = order[begin : begin + EVALUATED]
            yield self.data[chosen], [windows[i] for i in chosen]


def _read(model: nn.Module, batch: Batch, device: torch.device) -> Batch:
    """Logits of the answer's first and last token, ``(n, longest)``, those of padding -inf; then the targets."""
    tokens, types, mask, first, last = (t.to(device, non_blocking=True) for t in batch)
    seen = model(input_ids=tokens, token_type_ids=types, attention_mask=mask)
    starts, ends = (logits.masked_fill(mask == 0, -torch.inf) for logits in (seen.start_logits, seen.end_logits))
    return starts, ends, first, last


# The data.


def load_squad(data_dir: Path | None) -> tuple[Windows, Windows]:
    """Windows of the training and of the development set, in tokens of BERT base.

    Raises:
        MissingDataError: a file or the tokenizer is missing, damaged, or something else.
    """
    place = find_folder(data_dir, "SQuAD v1.1", ("squad", "."), (TRAIN, DEV), SOURCE)
    tokenizer = _from_pretrained(library("transformers").AutoTokenizer, data_dir)
    _check_words(tokenizer, data_root(data_dir) / BERT)
    train, dev = (questions_of(read_articles(place, file)) for file in (TRAIN, DEV))
    return windows_of(train, tokenizer, Sizes()), windows_of(dev, tokenizer, Sizes())


def load_squad_small(data_dir: Path | None) -> tuple[Windows, Windows]:
    """Windows of the development set (or one put together again): all articles but the last ten, and the last ten.

    Raises:
        MissingDataError: a file or BERT's vocabulary is missing, damaged, or something else.
    """
    articles = development_articles(data_dir)
    hub = f"https://huggingface.co/{HUB}, where it is vocab.txt"
    path = find_folder(data_dir, "BERT's vocabulary", ("bert-vocab", "."), (VOCABULARY,), hub) / VOCABULARY
    tokenizer = library("transformers").BertTokenizer(vocab=str(path), do_lower_case=True)
    _check_words(tokenizer, path)
    train, test = (questions_of(part) for part in (articles[:-TEST_ARTICLES], articles[-TEST_ARTICLES:]))
    return windows_of(train, tokenizer, SMALL), windows_of(test, tokenizer, SMALL)


def development_articles(data_dir: Path | None) -> list[Any]:
    """Of the development set as published, or of one put together again.

    Raises:
        MissingDataError: neither is there, or it is something else.
    """
    file = DEV if there(data_root(data_dir) / "squad", DEV) is not None else RECONSTRUCTED
    return read_articles(find_folder(data_dir, "SQuAD v1.1", ("squad", "."), (file,), SOURCE), file)


def read_articles(folder: Path, file: str) -> list[Any]:
    """The articles of a SQuAD v1.1 file, as its JSON has them.

    Raises:
        MissingDataError: it is of v2.0, whose questions may have no answer.
    """
    articles: list[Any] = json.loads(read_file(folder, file))["data"]
    if not all(qa["answers"] for article in articles for part in article["paragraphs"] for qa in part["qas"]):
        raise broken(folder / file, "a question has no answer, as in SQuAD v2.0; v1.1 is needed")
    return articles


def questions_of(articles: list[Any]) -> list[Question]:
    """All questions of all paragraphs."""
    return [
        Question(
            qa["question"], part["context"], tuple(answer["text"] for answer in qa["answers"]),
            (first := qa["answers"][0])["answer_start"], first["answer_start"] + len(first["text"]),
        )
        for article in articles for part in article["paragraphs"] for qa in part["qas"]
    ]  # fmt: skip


def _from_pretrained(kind: Any, data_dir: Path | None) -> Any:
    """A tokenizer or a model of BERT base: from its folder beside the data, where there is one; else from the hub."""
    folder = data_root(data_dir) / BERT
    source = str(folder) if folder.is_dir() else HUB
    try:
        return kind.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise MissingDataError(
            f"{kind.__name__} cannot be loaded from {source} ({error}). Save https://huggingface.co/{HUB} "
            f"(config.json, model.safetensors, tokenizer.json, tokenizer_config.json, vocab.txt) in {folder}; or take "
            "squad-small, which needs no trained weights."
        ) from error


def _check_words(tokenizer: Any, path: Path) -> None:
    # Without its file the library makes a tokenizer of five words, and says nothing.
    has = tokenizer.get_vocab()
    if len(has) != WORDS or not {"[CLS]", "[SEP]", "[PAD]", "[UNK]"} <= has.keys():
        raise broken(path, f"it has {len(has)} words, not the {WORDS} of BERT base uncased")


def _bert(**sizes: int) -> nn.Module:
    transformers = library("transformers")
    network: nn.Module = transformers.BertForQuestionAnswering(transformers.BertConfig(**sizes))
    return network


def _small() -> nn.Module:
    """A BERT of two layers: 4,336,898 parameters, of them 3,906,816 for its words."""
    return _bert(
        vocab_size=WORDS, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512,
        max_position_embeddings=SMALL.window,
    )  # fmt: skip


SQUAD = QuestionAnswering(
    name="squad", optimizer="adam", batch_size=16, epochs=3, rates={"default": 2e-5},
    policy=ExploreExploit.from_paper("squad"), datasets=load_squad,
    model=_bert,  # BERT base: 108,893,186 parameters
    options=NO_DECAY, clip=1.0, pretrained=True,
)  # fmt: skip

SQUAD_SMALL = QuestionAnswering(
    name="squad-small", optimizer="adam", batch_size=16, epochs=5,
    rates=dict.fromkeys(ADAPTIVE, 5e-4) | {"default": 0.1}, policy=ExploreExploit.from_paper("squad"),
    datasets=load_squad_small, model=_small, options=NO_DECAY, clip=1.0,
    notice="squad-small is not SQuAD's protocol: it trains on the first articles of the development set and tests on "
    f"its last {TEST_ARTICLES}. Its figures compare with nothing but themselves.",
)  # fmt: skip
