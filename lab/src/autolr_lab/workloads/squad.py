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

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolr.policies import ExploreExploit
from autolr_lab.workloads.shakespeare import ADAPTIVE
from autolr_lab.workloads.squad_answers import Answer, best_answer, score
from autolr_lab.workloads.squad_windows import Asked, Passage, Question, Sizes, Window, Windows, windows_of
from autolr_lab.workloads.workload import Batch, MissingDataError, Workload, broken, data_root, evaluation_mode

FOLDER = "squad"
TRAIN, DEV = ("train-v1.1",), ("dev-v1.1", "dev-v1.1-reconstructed")  # each .json or .json.gz
TEST_ARTICLES = 10  # of the development set, where it has to do for everything
EVALUATED = 64  # windows at once
BERT, HUB = "bert-base-uncased", "google-bert/bert-base-uncased"  # a folder, and a name on Hugging Face's hub
VOCABULARY, WORDS = "bert-base-uncased-vocab.txt", 30_522
SMALL = Sizes(window=256, stride=64)
NOTICE = (
    "squad-small is not SQuAD's protocol: it trains on the first articles of the development set and tests on its last "
    f"{TEST_ARTICLES}. Its figures compare with nothing but themselves."
)


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
        network: nn.Module = _from_pretrained(_transformers().BertForQuestionAnswering, data_dir)
        return network

    def test_batches(self, data: Any) -> Iterable[Any]:
        """Minibatches of windows of about one length, each with the windows that it was made of."""
        return Evaluated(data)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean over windows of the mean cross-entropy of first and last token, moved to the model's device."""
        starts, ends, first, last = _read(model, batch, next(model.parameters()).device)
        return (F.cross_entropy(starts, first) + F.cross_entropy(ends, last)) / 2

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: Iterable[Any], device: torch.device) -> dict[str, float]:
        """Mean loss over windows (the first of the right answers), and over questions exact match and F1, 0 to 100.

        Args:
            model: a BERT for question answering.
            batches: from `test_batches`: a minibatch of `Windows` with its windows.
            device: of the model.
        """
        total, windows = 0.0, 0
        best: dict[Question, Answer] = {}
        with evaluation_mode(model):
            for batch, read in batches:
                starts, ends, first, last = _read(model, batch, device)
                losses = (F.cross_entropy(*pair, reduction="sum") for pair in ((starts, first), (ends, last)))
                total += float(sum(loss.double() for loss in losses)) / 2
                windows += len(read)
                for window, *logits in zip(read, _array(starts), _array(ends), strict=True):
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


def _array(logits: Tensor) -> np.ndarray:
    return logits.float().cpu().numpy()


# The data.


def load_squad(data_dir: Path | None) -> tuple[Windows, Windows]:
    """Windows of the training and of the development set, in tokens of BERT base.

    The files are looked for in the folder ``squad`` of ``data_dir``, or of the folder that AUTOLR_DATA names, and in
    that folder itself; the tokenizer where `QuestionAnswering.network` looks for the weights.

    Raises:
        MissingDataError: a file or the tokenizer is missing, damaged, or something else.
    """
    root = data_root(data_dir)
    train, dev = (read_articles(_find(root, names)) for names in (TRAIN, DEV))
    tokenizer = _from_pretrained(_transformers().AutoTokenizer, data_dir)
    _check_words(tokenizer, root / BERT)
    return windows_of(train, tokenizer, Sizes()), windows_of(dev, tokenizer, Sizes())


def load_squad_small(data_dir: Path | None) -> tuple[Windows, Windows]:
    """Windows of the development set: all articles but the last ten, and the last ten.

    Looked for as `load_squad` does; BERT's vocabulary in ``bert-vocab`` or the folder itself.

    Raises:
        MissingDataError: a file is missing, damaged, or something else.
    """
    root = data_root(data_dir)
    path = _find(root, DEV)
    articles = read_articles(path)
    if len(articles) <= TEST_ARTICLES:
        raise broken(path, f"it has {len(articles)} articles, too few to test on {TEST_ARTICLES} and train on others")
    tokenizer = _tokenizer(root)
    train, test = articles[:-TEST_ARTICLES], articles[-TEST_ARTICLES:]
    return windows_of(train, tokenizer, SMALL), windows_of(test, tokenizer, SMALL)


def read_articles(path: Path) -> list[list[Passage]]:
    """The articles of a SQuAD v1.1 file, each a list of its paragraphs with their questions.

    Raises:
        MissingDataError: not such a file.
    """
    try:
        raw = path.read_bytes()
        content = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise broken(path, f"it cannot be read ({error})") from error
    try:
        return [[_passage(path, paragraph) for paragraph in article["paragraphs"]] for article in content["data"]]
    except (KeyError, TypeError) as error:
        raise broken(path, f"it is not laid out as SQuAD v1.1 ({error!r})") from error


def _passage(path: Path, paragraph: Any) -> Passage:
    text: str = paragraph["context"]
    asked = [
        Asked(qa["id"], qa["question"], tuple((answer["answer_start"], answer["text"]) for answer in qa["answers"]))
        for qa in paragraph["qas"]
    ]
    for question in asked:
        if not question.answers:
            raise broken(path, f"question {question.id} has no answer, as in SQuAD v2.0; v1.1 is needed")
        for begin, answer in question.answers:
            if not (answer and 0 <= begin <= len(text) - len(answer)):
                raise broken(path, f"question {question.id} has the answer {answer!r} at {begin}, beyond its paragraph")
    if not all(isinstance(part, str) for part in (text, *(question.text for question in asked))):
        raise TypeError("a text is no string")
    return Passage(text, tuple(asked))


def _find(root: Path, names: tuple[str, ...]) -> Path:
    places = [root / FOLDER, root]
    files = [name + ending for name in names for ending in (".json", ".json.gz")]
    for place in places:
        for name in files:
            if (place / name).is_file():
                return place / name
    looked = "\n".join(f"  {place}/" for place in places)
    raise MissingDataError(
        f"SQuAD v1.1 was not found. Looked in\n{looked}\nfor {' or '.join(files)}.\n"
        "Get it from https://rajpurkar.github.io/SQuAD-explorer/; put it in "
        f"{places[0]}/, or name its folder: --data-dir DIR or AUTOLR_DATA."
    )


# The Transformers library.


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingDataError(
            "This workload needs the Transformers library, which cannot be imported "
            f"({error}). Install it: pip install 'torch-autolr[text]'."
        ) from error
    return transformers


def _from_pretrained(kind: Any, data_dir: Path | None) -> Any:
    """A tokenizer or a model of BERT base: from its folder beside the data, where there is one; else from the hub."""
    folder = data_root(data_dir) / BERT
    source = str(folder) if folder.is_dir() else HUB
    try:
        return kind.from_pretrained(source)
    except (OSError, ValueError) as error:
        if folder.is_dir():
            raise broken(folder, f"{kind.__name__} cannot be loaded from it ({error})") from error
        raise MissingDataError(
            f"BERT base was not found in {folder}/, nor could it be got from the hub ({error})\n"
            f"Save https://huggingface.co/{HUB} (config.json, model.safetensors, tokenizer.json, "
            f"tokenizer_config.json, vocab.txt) in {folder}/; or take squad-small, which needs no trained weights."
        ) from error


def _tokenizer(root: Path) -> Any:
    """BERT's own tokenizer with the vocabulary file that BERT base was published with."""
    places = [root / "bert-vocab", root]
    path = next((place / VOCABULARY for place in places if (place / VOCABULARY).is_file()), None)
    if path is None:
        looked = "\n".join(f"  {place}/" for place in places)
        raise MissingDataError(
            f"BERT's vocabulary was not found. Looked in\n{looked}\nfor {VOCABULARY}.\n"
            f"It is vocab.txt of https://huggingface.co/{HUB}; put it in {places[0]}/ under that name."
        )
    try:
        tokenizer = _transformers().BertTokenizer(vocab=str(path), do_lower_case=True)
    except Exception as error:  # the library's own, of no common kind
        raise broken(path, f"it cannot be read ({error})") from error
    _check_words(tokenizer, path)
    return tokenizer


def _check_words(tokenizer: Any, path: Path) -> None:
    # Without its file the library makes a tokenizer of five words, and says nothing.
    known = tokenizer.get_vocab()
    if len(known) != WORDS or not {"[CLS]", "[SEP]", "[PAD]", "[UNK]"} <= known.keys():
        raise broken(path, f"it has {len(known)} words, not the {WORDS} of BERT base uncased")


def _bert(**sizes: int) -> nn.Module:
    transformers = _transformers()
    network: nn.Module = transformers.BertForQuestionAnswering(transformers.BertConfig(**sizes))
    return network


def _small() -> nn.Module:
    """A BERT of two layers: 4,336,898 parameters, of them 3,906,816 for its words."""
    return _bert(
        vocab_size=WORDS,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=SMALL.window,
    )


NO_DECAY = {"adamw": {"weight_decay": 0.0}}

SQUAD = QuestionAnswering(
    name="squad",
    optimizer="adam",
    batch_size=16,
    epochs=3,
    rates={"default": 2e-5},
    policy=ExploreExploit.from_paper("squad"),
    datasets=load_squad,
    model=_bert,  # BERT base: 108,893,186 parameters
    options=NO_DECAY,
    clip=1.0,
    batch_unit="windows",
    pretrained=True,
)

SQUAD_SMALL = QuestionAnswering(
    name="squad-small",
    optimizer="adam",
    batch_size=16,
    epochs=5,
    rates=dict.fromkeys(ADAPTIVE, 5e-4) | {"default": 0.1},
    policy=ExploreExploit.from_paper("squad"),
    datasets=load_squad_small,
    model=_small,
    options=NO_DECAY,
    clip=1.0,
    batch_unit="windows",
    notice=NOTICE,
)
