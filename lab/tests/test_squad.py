"""SQuAD: windows that lose no token, answers in the paragraph's own characters, the official score, a BERT to train."""

import dataclasses
import functools
import gzip
import json
import math
import os
import string
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from autolr.policies import ExploreExploit
from autolr_lab.training.runs import Settings, read_run
from autolr_lab.training.training import train
from autolr_lab.workloads import WORKLOADS, MissingDataError, squad
from autolr_lab.workloads.squad import load_squad, load_squad_small, read_articles
from autolr_lab.workloads.squad_answers import LONGEST, N_BEST, best_answer, normalise, overlap, score
from autolr_lab.workloads.squad_windows import (
    Asked,
    Paragraph,
    Passage,
    Question,
    Sizes,
    Windows,
    cut,
    windows_of,
)
from autolr_lab.workloads.workload import loader
from training_runs import assert_innocent

transformers = pytest.importorskip("transformers", reason="needs torch-autolr[text]")

CPU = torch.device("cpu")
SQUAD, SMALL = WORKLOADS["squad"], WORKLOADS["squad-small"]
CLS, SEP, PAD = 2, 3, 0


# Cutting.


def question_of(words, tokens, span=range(0), answers=("",)):
    """A question of so many tokens on a paragraph of so many, each token one letter wide and a space apart."""
    text = " ".join(string.ascii_lowercase[i % 26] for i in range(tokens))
    starts = 2 * np.arange(tokens)
    paragraph = Paragraph(text, 100 + np.arange(tokens), np.stack([starts, starts + 1], 1))
    return Question(1000 + np.arange(words), paragraph, answers, span)


@st.composite
def cuttings(draw):
    words = draw(st.integers(0, 8))
    stride = draw(st.integers(1, 20))
    sizes = Sizes(draw(st.integers(stride + 11, 50)), stride, 8)
    tokens = draw(st.integers(0, 150))
    first = draw(st.integers(0, max(0, tokens - 1)))
    last = draw(st.integers(first, min(tokens, first + 12)))
    return question_of(words, tokens, range(first, last)), sizes


@given(cuttings())
def test_windows_begin_a_stride_apart_hold_every_token_and_are_no_longer_or_more_than_they_must(cutting):
    question, sizes = cutting
    windows, n, room = cut(question, sizes), len(question.paragraph.tokens), sizes.room(len(question.tokens))
    assert [window.piece.start for window in windows] == [sizes.stride * i for i in range(len(windows))]
    assert all(len(window.piece) == room and window.piece.stop < n for window in windows[:-1])
    assert windows[-1].piece.stop == n
    assert all(len(window) == len(window.piece) + len(question.tokens) + 3 <= sizes.window for window in windows)
    assert set(range(n)) == {token for window in windows for token in window.piece}


@given(cuttings())
@example((question_of(10, 372), Sizes()))  # the last piece is so much shorter that the bit for a long one decides
def test_each_token_is_judged_in_the_one_window_that_shows_most_on_its_poorer_side(cutting):
    question, sizes = cutting
    windows = cut(question, sizes)

    def context(token, piece):  # as run_squad: _check_is_max_context
        return min(token - piece.start, piece.stop - 1 - token) + 0.01 * len(piece)

    judged = [token for window in windows for token in window.fullest]
    assert judged == list(range(len(question.paragraph.tokens)))
    for window in windows:
        for token in window.fullest:
            rivals = [context(token, other.piece) for other in windows if token in other.piece]
            assert context(token, window.piece) == max(rivals)


@given(cuttings())
def test_a_target_is_the_answers_place_in_the_minibatch_and_cls_where_not_all_of_it_is_there(cutting):
    question, sizes = cutting
    windows = cut(question, sizes)
    data = windows_in_memory(windows)
    tokens, types, mask, starts, ends = data[range(len(windows))]
    whole = set()
    for row, window in enumerate(windows):
        n, words = len(window), len(question.tokens)
        assert tokens[row, :n].tolist() == [
            CLS, *question.tokens, SEP, *question.paragraph.tokens[window.piece.start : window.piece.stop], SEP
        ]  # fmt: skip
        assert tokens[row, n:].tolist() == [PAD] * (tokens.shape[1] - n)
        assert mask[row].tolist() == [1] * n + [0] * (tokens.shape[1] - n)
        assert types[row].tolist() == [0] * (words + 2) + [1] * (n - words - 2) + [0] * (tokens.shape[1] - n)
        answer = [100 + token for token in question.span]
        if answer and set(question.span) <= set(window.piece):
            assert tokens[row, starts[row] : ends[row] + 1].tolist() == answer
            whole.add(row)
        else:
            assert (int(starts[row]), int(ends[row])) == (0, 0)
    if 0 < len(question.span) <= sizes.room(len(question.tokens)) - sizes.stride + 1:
        assert whole  # two pieces share so many tokens: what is no longer is whole in one of them


def windows_in_memory(windows):
    return Windows(windows, cls=CLS, sep=SEP, pad=PAD)


@pytest.mark.parametrize("stride", [0, 18])
def test_a_stride_that_would_leave_tokens_out_is_refused(stride):
    Sizes(window=28, stride=17, question=8)
    with pytest.raises(ValueError, match=f"stride must be from 1 to the 17 tokens .*; got {stride}"):
        Sizes(window=28, stride=stride, question=8)


# Tokens of a real tokenizer.

WORDS = ["the", "river", "rhine", "flows", "north", "in", "##to", "sea", "which", "where", "swiss", "alps", "begins"]


@functools.cache
def vocabulary():
    letters = string.ascii_lowercase + string.digits
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    known += [*string.punctuation, *WORDS]
    return "\n".join([*known, *(f"[unused{i}]" for i in range(30_522 - len(known)))]) + "\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text(vocabulary())
    return transformers.BertTokenizer(vocab=str(path))


SMALL_SIZES = Sizes(window=40, stride=8, question=8)


@pytest.mark.parametrize("n", [1, 20, 33, 34, 41, 42, 100])
@pytest.mark.parametrize(
    "asked", ["where?", "which sea begins in the alps", "which sea, which river, which alps, the swiss"]
)
def test_windows_are_those_of_the_library_where_it_is_told_how_many_tokens_pieces_share(tokenizer, n, asked):
    text = " ".join(WORDS[i * i % 5] for i in range(n))
    data = windows_of([[Passage(text, (Asked("q", asked, ((0, text[:3]),)),))]], tokenizer, SMALL_SIZES)
    question = tokenizer.decode(tokenizer(asked, add_special_tokens=False)["input_ids"][:8])
    room = SMALL_SIZES.room(len(data.windows[0].question.tokens))
    theirs = tokenizer(
        question, text, truncation="only_second", max_length=40, stride=room - 8, return_overflowing_tokens=True,
        padding=True,
    )  # fmt: skip
    tokens, types, mask, _, _ = data[range(len(data))]
    assert tokens.tolist() == theirs["input_ids"]
    assert types.tolist() == theirs["token_type_ids"]
    assert mask.tolist() == theirs["attention_mask"]


TEXTS = st.lists(
    st.sampled_from(["Rhine", "the", "Alps,", "Zürich", "1,230 km", "—", "“sea”", "x-y", "東京"]), min_size=1
)


@given(TEXTS, st.data())
def test_an_answer_at_whole_words_is_read_back_as_the_very_characters_of_the_paragraph(tokenizer, words, data):
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(len(words) - 1, first + 3)))
    text = "  ".join(words)
    begin = len("  ".join(words[:first])) + 2 * bool(first)
    answer = "  ".join(words[first : last + 1])
    assert text[begin : begin + len(answer)] == answer
    asked = Asked("q", "where?", ((begin, answer),))
    windows = windows_of([[Passage(text, (asked,))]], tokenizer, SMALL_SIZES).windows
    targets = [(window, *window.target) for window in windows if window.target != (0, 0)]
    assert targets
    for window, start, end in targets:
        assert window.text(start, end) == answer
    # And it is what a model that is sure of it says, through the choice among all spans.
    length = len(windows[0])
    if len(windows) == 1 and targets[0][2] - targets[0][1] < LONGEST:
        starts, ends = F.one_hot(torch.tensor(targets[0][1:]), length).float().numpy()
        assert best_answer(windows[0], starts, ends).text == answer


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        pytest.param("hin", "rhine", id="a part of a token is the whole of it"),
        pytest.param("sea", "sea", id="no token that ends or begins at its edge"),
        pytest.param("(sea", "(sea", id="two tokens without a space"),
        pytest.param(" (", "(", id="a space has no token"),
        pytest.param("\u00ad", None, id="nor has a soft hyphen, which the tokenizer drops"),
    ],
)
def test_which_tokens_an_answer_is(tokenizer, answer, told):
    text = "the rhine \u00ad flows in (sea-alps)"
    asked = Asked("q", "where?", ((text.index(answer), answer),))
    (window,) = windows_of([[Passage(text, (asked,))]], tokenizer, SMALL_SIZES).windows
    assert (window.text(*window.target) if window.target != (0, 0) else None) == told


def test_every_question_of_a_paragraph_shares_its_tokens(tokenizer):
    asked = tuple(Asked(str(i), word, ((0, "the"),)) for i, word in enumerate(WORDS))
    windows = windows_of(
        [[Passage("the sea", asked)], [Passage("the alps", asked[:1])]], tokenizer, SMALL_SIZES
    ).windows
    assert len({id(window.question.paragraph) for window in windows}) == 2
    known = tokenizer.get_vocab()
    assert [window.question.tokens.tolist() for window in windows if len(window.question.tokens) == 1] == [
        [known[word]] for word in [*WORDS, "the"] if not word.startswith("#")
    ]


# Choosing.


def chosen_by_hand(window, starts, ends):
    first, last = (sorted(range(len(window)), key=lambda i: -logits[i])[:N_BEST] for logits in (starts, ends))
    words = len(window.question.tokens)
    best = (-math.inf, None)
    for i in first:
        for j in last:
            place = i - words - 2 + window.piece.start
            inside = words + 2 <= i <= j < len(window) - 1 and j - i + 1 <= LONGEST
            if inside and place in window.fullest:
                best = max(best, (starts[i] + ends[j], window.text(i, j)), key=lambda it: it[0])
    return best


@pytest.mark.parametrize("seed", range(20))
def test_the_answer_is_the_best_allowed_pair_of_the_twenty_best_first_and_last_tokens(seed):
    rng = np.random.default_rng(seed)
    windows = cut(question_of(int(rng.integers(1, 8)), 120), Sizes(window=60, stride=20, question=8))
    for window in windows:
        starts, ends = rng.normal(size=(2, 90))
        starts[len(window) :] = ends[len(window) :] = 9  # padding, which is not to be looked at
        found = best_answer(window, starts, ends)
        assert (found.score, found.text) == chosen_by_hand(window, starts, ends)


@pytest.mark.parametrize(
    ("first", "last", "allowed"),
    [
        pytest.param(10, 10, True, id="one token"),
        pytest.param(10, 39, True, id="thirty tokens"),
        pytest.param(10, 40, False, id="thirty-one tokens"),
        pytest.param(10, 9, False, id="backwards"),
        pytest.param(2, 12, False, id="from the question"),
        pytest.param(8, 8, True, id="the paragraph's first token"),
        pytest.param(0, 0, False, id="[CLS]"),
        pytest.param(30, 58, True, id="to the paragraph's last token"),
        pytest.param(58, 59, False, id="to [SEP]"),
    ],
)
def test_what_an_answer_may_be(first, last, allowed):
    (window,) = cut(question_of(6, 51), Sizes(window=60, stride=20, question=8))
    starts, ends = np.zeros((2, len(window)))
    starts[first] = ends[last] = 9
    assert (best_answer(window, starts, ends).score == 18) is allowed


def test_a_window_whose_best_tokens_make_no_answer_gives_none():
    (window,) = cut(question_of(30, 20), Sizes(window=60, stride=20, question=30))
    logits = np.zeros(len(window))
    logits[1:31] = 1  # all twenty are the question's
    assert best_answer(window, logits, logits) is None


# Scoring.


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The Rhine", "rhine"),
        ("an  Alp,\n a\tsea", "alp sea"),
        ("theory of another", "theory of another"),
        ("U.S.", "us"),
        ("it's (1,230) km!", "its 1230 km"),
        ("Zürich — “Sea”", "zürich — “sea”"),  # only ASCII's punctuation goes
        ("A-the-B", "atheb"),  # punctuation goes first
        ("the", ""),
    ],
)
def test_what_counts_of_a_text(text, plain):
    assert normalise(text) == plain


def test_f1_is_that_of_the_words_each_as_often_as_both_have_it():
    assert overlap("the cat sat", "A cat sat down") == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    assert overlap("sea sea sea", "sea north") == pytest.approx(2 / 5)
    assert overlap("", "sea") == overlap("sea", "alps") == overlap("the", "a") == 0
    assert overlap("north sea", "Sea, North!") == 1


def test_the_likest_of_the_right_answers_counts_and_the_score_is_the_percentage():
    answers = [("north sea", "the sea"), ("alps",), ("rhine", "the river rhine")]
    assert score(["Sea.", "sea", "a river"], answers) == pytest.approx(
        {"exact_match": 100 / 3, "f1": 100 * (1 + 0 + 2 / 3) / 3}
    )


DATA = Path(os.environ.get("AUTOLR_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "squad" / "dev-v1.1-reconstructed.json.gz").is_file(),
    reason=f"no squad/dev-v1.1-reconstructed.json.gz in {DATA}: name its folder in AUTOLR_DATA",
)


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(
    ("file", "exact", "f1"), [("logreg-baseline", 40.1419, 50.9815), ("bert-ensemble", 86.2062, 92.1956)]
)
def test_published_predictions_have_their_published_score(file, exact, f1):
    with gzip.open(DATA / "squad" / "predictions" / f"{file}.json.gz") as read:
        predicted = json.load(read)
    articles = read_articles(DATA / "squad" / "dev-v1.1-reconstructed.json.gz")
    asked = [question for article in articles for passage in article for question in passage.questions]
    seen = score([predicted.get(one.id, "") for one in asked], [[text for _, text in one.answers] for one in asked])
    assert {name: round(value, 4) for name, value in seen.items()} == {"exact_match": exact, "f1": f1}


@pytest.fixture(scope="module")
def real():
    return load_squad_small(DATA)


@pytest.mark.data
@needs_data
def test_the_small_ones_articles_are_split_as_its_notice_says(real):
    asked = [{window.question for window in data.windows} for data in real]
    assert list(map(len, asked)) == [8582, 1988]
    texts = [{question.paragraph.text for question in questions} for questions in asked]
    assert not texts[0] & texts[1]
    assert max(len(window) for data in real for window in data.windows) == 256


@pytest.mark.data
@needs_data
def test_the_development_set_makes_the_10833_windows_that_run_squad_makes_of_it(real):
    # neuralmagic/sparseml issue 1464 has that number, and the 10,784 of those who take the two strides for one.
    cuts = [cut(question, Sizes()) for question in {w.question: 0 for data in real for w in data.windows}]
    assert sum(map(len, cuts)) == 10_833


@pytest.mark.data
@needs_data
def test_a_model_that_knows_answers_nearly_all_real_questions(real):
    seen = SMALL.evaluate(Knowing(real[1]), SMALL.test_batches(real[1]), CPU)
    # Not 100: some answers are a part of a token, or longer than 30 of them.
    assert seen["exact_match"] > 98
    assert seen["f1"] > 99


# The whole path.


class Knowing(nn.Module):
    """Knows each window's target by heart, and says so as a BERT would."""

    def __init__(self, data, sure=9.0):
        super().__init__()
        rows = zip(*data[range(len(data))], strict=True)
        self.targets = {tuple(tokens[mask == 1].tolist()): ends for tokens, _, mask, *ends in rows}
        self.sure = sure

    def forward(self, input_ids, token_type_ids, attention_mask):  # noqa: ARG002 - as a BERT is called
        asked = [tuple(row[mask == 1].tolist()) for row, mask in zip(input_ids, attention_mask, strict=True)]
        targets = torch.tensor([self.targets[tokens] for tokens in asked]).T
        # Padding has the highest logits of all: it must not count.
        starts, ends = (self.sure * F.one_hot(at, input_ids.shape[1]) + 99 * (1 - attention_mask) for at in targets)
        return SimpleNamespace(start_logits=starts, end_logits=ends)


RIVER = "The Rhine begins in the Swiss Alps, flows north  into the North Sea (at Hoek), and is 1,230 km long."


def articles(n=12, paragraphs=2):
    """In the layout of the published file: paragraphs longer than a window, with a question on each of their parts."""
    made = []
    for a in range(n):
        content = []
        for p in range(paragraphs):
            text = " ".join([f"{a} {p}.", RIVER] + ["And so on, and on and on and on."] * 9 + [f"It ends in sea {a}."])
            answers = ["The Rhine", "Swiss Alps", "Hoek", "1,230 km", f"sea {a}"]
            qas = [
                {"id": f"{a}-{p}-{i}", "question": f"which river or sea or alps {i}?",
                 "answers": [{"answer_start": text.index(x), "text": x}, {"answer_start": 0, "text": text[:1]}]}
                for i, x in enumerate(answers)
            ]  # fmt: skip
            content.append({"context": text, "qas": qas})
        made.append({"title": str(a), "paragraphs": content})
    return {"data": made, "version": "1.1"}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def write_small(folder, content=None, name="squad/dev-v1.1-reconstructed.json.gz", words="bert-vocab/"):
    write(folder / name, content or articles())
    vocabulary_file = folder / words / "bert-base-uncased-vocab.txt"
    vocabulary_file.parent.mkdir(parents=True, exist_ok=True)
    vocabulary_file.write_text(vocabulary())
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_small(tmp_path_factory.mktemp("squad"))


def test_a_model_that_knows_gets_everything_right_over_all_windows(small):
    _, test_data = load_squad_small(small)
    assert len(test_data) > len({window.question for window in test_data.windows}) == 10 * 2 * 5  # several windows each
    seen = SMALL.evaluate(Knowing(test_data), SMALL.test_batches(test_data), CPU)
    # One logit of 9 among n: each window's own length counts, not what it is padded to.
    loss = sum(math.log(1 + (len(window) - 1) / math.exp(9)) for window in test_data.windows) / len(test_data)
    assert seen == pytest.approx({"loss": loss, "exact_match": 100.0, "f1": 100.0}, rel=1e-4)


class Drawn(nn.Module):
    """Logits that only the tokens of a window decide, as good as random."""

    def forward(self, input_ids, token_type_ids, attention_mask):  # noqa: ARG002 - as a BERT is called
        starts, ends = (((input_ids * attention_mask).cumsum(1) * k % 97).double() / 9 for k in (7, 13))
        return SimpleNamespace(start_logits=starts, end_logits=ends)


def test_the_best_answer_over_all_windows_of_a_question_is_scored(small, monkeypatch):
    _, test_data = load_squad_small(small)
    by_hand = {}
    for i, window in enumerate(test_data.windows):
        tokens, types, mask, *_ = test_data[[i]]
        seen = Drawn()(tokens, types, mask)
        value, text = chosen_by_hand(window, seen.start_logits[0].tolist(), seen.end_logits[0].tolist())
        by_hand.setdefault(window.question, []).append((value, text or ""))
    asked = []
    monkeypatch.setattr(squad, "score", lambda *given: asked.append(given) or {})
    SMALL.evaluate(Drawn(), SMALL.test_batches(test_data), CPU)
    ((answers, right),) = asked
    assert sorted(zip(answers, right, strict=True)) == sorted(
        (max(found, key=lambda it: it[0])[1], question.answers) for question, found in by_hand.items()
    )
    # The case that it is about: an answer that is not from the first window of its question.
    assert any(found[0][0] < max(value for value, _ in found) for found in by_hand.values())


def test_a_model_that_diverged_is_scored_and_has_no_loss(small):
    _, test_data = load_squad_small(small)
    seen = SMALL.evaluate(Knowing(test_data, sure=math.nan), SMALL.test_batches(test_data), CPU)
    assert math.isnan(seen["loss"])
    assert 0 <= seen["exact_match"] <= seen["f1"] <= 100


def bert(seed=0, **sizes):
    torch.manual_seed(seed)
    config = {"vocab_size": 200, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config |= {"intermediate_size": 32, "max_position_embeddings": 256}
    return transformers.BertForQuestionAnswering(transformers.BertConfig(**config | sizes))


def test_the_loss_is_the_mean_cross_entropy_of_first_and_last_token_and_evaluations_its_mean_over_windows(small):
    _, test_data = load_squad_small(small)
    test_data.windows = test_data.windows[:14]
    model = bert().train()
    generator = torch.get_rng_state()
    seen = SMALL.evaluate(model, SMALL.test_batches(test_data), CPU)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(module.training for module in model.modules())
    model.eval()
    alone = []
    for i in range(len(test_data)):
        tokens, types, mask, starts, ends = test_data[[i]]  # no padding: what the library itself makes of it
        alone.append(model(tokens, mask, types, start_positions=starts, end_positions=ends).loss.item())
    for chosen in (range(8), range(9, 12)):
        by_hand = sum(alone[i] for i in chosen) / len(chosen)
        assert SMALL.loss(model, test_data[chosen]).item() == pytest.approx(by_hand, rel=1e-5)
    assert seen["loss"] == pytest.approx(sum(alone) / len(alone), rel=1e-5)
    assert seen["loss"] == pytest.approx(math.log(200), rel=0.1)  # begins at chance, of about 200 tokens


def test_a_tiny_bert_learns_a_few_questions_by_heart(small):
    # Five questions on one paragraph, two windows each. It begins at ln 200 = 5.3; bar: a third.
    train_data, _ = load_squad_small(small)
    batch = train_data[range(10)]
    model = bert(hidden_size=32)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=0.0)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = SMALL.loss(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3


@pytest.mark.parametrize("schedule", ["autolr", "fixed"])
def test_a_run_from_the_files_to_the_result(small, tmp_path, monkeypatch, schedule):
    monkeypatch.setitem(WORKLOADS, "squad-small", dataclasses.replace(SMALL, model=bert))
    policy = dataclasses.asdict(dataclasses.replace(SMALL.policy, spread=1, explore=1)) if schedule == "autolr" else {}
    settings = Settings(
        "squad-small", "adamw", schedule, 5e-4, 1, 4, 0, data_dir=str(small), policy=policy,
        window=3 if policy else None, superbatch=2 if policy else None,
    )  # fmt: skip
    result = train(settings, tmp_path / "run")
    assert result["steps"] == math.ceil(len(load_squad_small(small)[0]) / 4)
    assert {key for key in read_run(tmp_path / "run").epochs[0] if key.startswith("test_")} == {
        "test_loss", "test_exact_match", "test_f1"
    }  # fmt: skip
    assert 0 <= result["test_exact_match"] <= result["test_f1"] <= 100
    assert (schedule == "autolr") is (result.get("looks", 0) > 0)


def test_looks_leave_the_training_of_a_bert_with_dropout_alone_to_the_bit(small):
    train_data, _ = load_squad_small(small)
    assert any(isinstance(module, nn.Dropout) and module.p == 0.1 for module in bert().modules())
    assert_innocent(
        model=bert,
        base=lambda net: torch.optim.AdamW(net.parameters(), 1e-3),
        batches=lambda: loader(train_data, 4, torch.Generator().manual_seed(0)),
        loss_fn=SMALL.loss,
        steps=10,
        looks=2,
    )


# The files.


@pytest.mark.parametrize("name", ["dev-v1.1.json", "dev-v1.1.json.gz", "dev-v1.1-reconstructed.json.gz"])
@pytest.mark.parametrize("folder", ["squad/", ""])
def test_the_file_is_found_packed_or_not_in_its_folder_or_beside_it(tmp_path, monkeypatch, folder, name):
    write_small(tmp_path, articles(11, 1), name=folder + name, words=folder and "bert-vocab/")
    monkeypatch.setenv("AUTOLR_DATA", str(tmp_path))
    train_data, test_data = load_squad_small(None)
    assert {window.question.answers[-2][-1] for window in train_data.windows} >= {"e", "m"}  # of one article
    assert {w.question.paragraph.text[:2] for w in train_data.windows} == {"0 "}
    assert len({w.question.paragraph.text for w in test_data.windows}) == 10


def test_passages_are_read_as_they_stand(tmp_path):
    (article,) = read_articles(write(tmp_path / "x.json", articles(1, 1)))
    (passage,) = article
    assert passage.text.startswith("0 0. The Rhine begins")
    assert passage.questions[1] == Asked("0-0-1", "which river or sea or alps 1?", ((29, "Swiss Alps"), (0, "0")))


def test_a_missing_file_is_refused_with_where_it_was_looked_for_and_where_to_get_it(tmp_path):
    for load, name in ((load_squad, "train-v1.1.json"), (load_squad_small, "dev-v1.1.json")):
        with pytest.raises(MissingDataError, match=r"SQuAD v1\.1 was not found") as refused:
            load(tmp_path)
        for hint in (f"{tmp_path / 'squad'}/\n", f"{tmp_path}/\n", name, "SQuAD-explorer", "--data-dir"):
            assert hint in str(refused.value)


def test_a_missing_vocabulary_is_refused_in_the_same_way(tmp_path):
    write(tmp_path / "dev-v1.1.json", articles())
    with pytest.raises(MissingDataError, match="vocabulary was not found") as refused:
        load_squad_small(tmp_path)
    for hint in (f"{tmp_path / 'bert-vocab'}/\n", "bert-base-uncased-vocab.txt", "vocab.txt of https://"):
        assert hint in str(refused.value)


@pytest.mark.parametrize("words", ["", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n", "x\n" * 30_522])
def test_another_vocabulary_is_refused(tmp_path, words):
    write_small(tmp_path)
    (tmp_path / "bert-vocab" / "bert-base-uncased-vocab.txt").write_text(words)
    with pytest.raises(MissingDataError, match=r"vocab\.txt is not what it should be"):
        load_squad_small(tmp_path)


def spoiled(**answer):
    content = articles(12, 1)
    content["data"][3]["paragraphs"][0]["qas"][2]["answers"][0] |= answer
    return content


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"", "cannot be read", id="empty"),
        pytest.param(b'{"data": [', "cannot be read", id="cut off"),
        pytest.param(b"\xff\xfe\xff", "cannot be read", id="no text"),
        pytest.param([1, 2], "not laid out as SQuAD v1.1", id="a list"),
        pytest.param({"data": [{"title": "x"}]}, "'paragraphs'", id="without paragraphs"),
        pytest.param({"data": [{"paragraphs": [{"context": 3, "qas": []}]}]}, "no string", id="a number for a text"),
        pytest.param(articles(10), "10 articles, too few to test on 10", id="nothing to train on"),
        pytest.param(spoiled(answer_start=10_000), "question 3-0-2 has the answer 'Hoek' at 10000", id="beyond"),
        pytest.param(spoiled(answer_start=-1), "at -1, beyond", id="before"),
        pytest.param(spoiled(text=""), "has the answer ''", id="nothing for an answer"),
        pytest.param(spoiled(text=None), "has the answer None", id="no answer"),
    ],
)
def test_a_file_that_is_not_squads_is_refused_with_what_is_wrong(tmp_path, content, told):
    write_small(tmp_path, name="dev-v1.1.json")
    write(tmp_path / "dev-v1.1.json", content)
    with pytest.raises(MissingDataError, match=r"dev-v1\.1\.json is not what it should be") as refused:
        load_squad_small(tmp_path)
    assert told in str(refused.value)


def test_a_packed_file_that_is_cut_off_is_refused(tmp_path):
    path = write(tmp_path / "dev-v1.1.json.gz", articles())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(MissingDataError, match="cannot be read"):
        read_articles(path)


def test_a_question_without_an_answer_is_refused_as_of_the_second_version(tmp_path):
    content = articles()
    content["data"][0]["paragraphs"][0]["qas"][0] |= {"answers": [], "is_impossible": True}
    with pytest.raises(MissingDataError, match=r"0-0-0 has no answer, as in SQuAD v2\.0; v1\.1 is needed"):
        read_articles(write(tmp_path / "dev-v2.0.json", content))


# The Transformers library, and trained weights.


def test_without_the_library_it_is_said_what_to_install(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for call in (lambda: load_squad_small(small), SMALL.model, lambda: SQUAD.network(small)):
        with pytest.raises(MissingDataError, match=r"pip install 'torch-autolr\[text\]'"):
            call()


@pytest.fixture
def pretrained(tmp_path, tokenizer):
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        write(tmp_path / name, articles(2, 1))
    folder = tmp_path / "bert-base-uncased"
    trained = transformers.BertModel(bert(seed=7, max_position_embeddings=384).config)
    trained.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tmp_path, trained


def test_trained_weights_and_tokens_come_from_their_folder_and_the_last_layer_is_drawn(pretrained):
    folder, trained = pretrained
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(SQUAD.network(folder))
    for name, value in models[0].bert.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name])
    last = [model.qa_outputs.weight for model in models]
    assert torch.equal(last[0], last[1])
    assert not torch.equal(last[0], last[2])
    train_data, dev_data = load_squad(folder)
    assert train_data.windows[0].question.tokens[0] == vocabulary().split("\n").index("which")
    assert max(map(len, train_data.windows)) > 256  # cut to 384
    assert len({window.question for window in dev_data.windows}) == 2 * 5


def test_a_run_from_trained_weights(pretrained, tmp_path):
    settings = Settings("squad", "adam", "fixed", 2e-5, 1, 8, 0, data_dir=str(pretrained[0]))
    result = train(settings, tmp_path / "run")
    assert result["steps"] == math.ceil(len(load_squad(pretrained[0])[0]) / 8)
    assert {name for name in result if name.startswith("test_")} == {"test_loss", "test_exact_match", "test_f1"}


def test_a_folder_without_weights_or_tokens_is_refused_by_name(pretrained):
    folder, _ = pretrained
    assert load_squad(folder)
    # Without tokenizer.json the library makes up a tokenizer of five words: no error of its own.
    for file, call in (("model.safetensors", SQUAD.network), ("tokenizer.json", load_squad)):
        (folder / "bert-base-uncased" / file).unlink()
        with pytest.raises(MissingDataError, match="bert-base-uncased is not what it should be"):
            call(folder)


def test_where_there_is_no_folder_the_hub_is_asked_and_where_that_fails_it_is_said_what_to_do(tmp_path, monkeypatch):
    asked = []

    def offline(name, *more, **options):
        asked.append(name)
        raise OSError("We couldn't connect to the hub")

    monkeypatch.setattr(transformers.BertForQuestionAnswering, "from_pretrained", offline)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", offline)
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        write(tmp_path / name, articles(2, 1))
    for call in (load_squad, SQUAD.network):
        with pytest.raises(MissingDataError, match="couldn't connect to the hub") as refused:
            call(tmp_path)
        for hint in (f"{tmp_path / 'bert-base-uncased'}/", "model.safetensors", "squad-small"):
            assert hint in str(refused.value)
    assert asked == ["google-bert/bert-base-uncased"] * 2


# Settings.


def test_settings_are_the_papers():
    assert (SQUAD.batch_size, SQUAD.epochs, SQUAD.clip, SQUAD.rate("adam")) == (16, 3, 1.0, 2e-5)
    assert SQUAD.policy == SMALL.policy == ExploreExploit.from_paper("squad")
    assert Sizes() == Sizes(window=384, stride=128, question=64)
    assert (N_BEST, LONGEST) == (20, 30)
    assert SQUAD.options["adamw"] == {"weight_decay": 0.0}
    # 2,500 steps of 16 are 0.45 epochs of the about 88,600 windows that the reference makes: Table 7.
    assert 2500 * SQUAD.batch_size / 88_600 == pytest.approx(0.45, abs=0.005)
    assert not SQUAD.notice
    assert "not SQuAD's protocol" in SMALL.notice


def test_networks_have_as_many_parameters_as_counted_by_hand():
    def counted(width, layers, positions):
        words = (30_522 + positions + 2) * width + 2 * width
        return words + layers * (4 * (width + 1) * width + 8 * width * width + 5 * width + 4 * width) + 2 * (width + 1)

    with torch.device("meta"):
        sizes = [sum(p.numel() for p in workload.model().parameters()) for workload in (SQUAD, SMALL)]
    assert sizes == [counted(768, 12, 512), counted(128, 2, 256)] == [108_893_186, 4_336_898]
