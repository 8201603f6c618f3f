"""The study of fine-tuning: how its data is cut, what a run is, and that searches are paid out of the steps."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from autolr_lab.studies.fine_tuning import measure, questions, texts
from autolr_lab.studies.fine_tuning.tables import tables
from autolr_lab.studies.fine_tuning.transfer import Transfer, change, mean_loss
from autolr_lab.studies.lines import Lines

TEXT = "One is here. Two e.g. is there. Three."


@pytest.mark.parametrize(("word", "sentence"), [("One", "One is here."), ("Two", "Two e.g."), ("Three", "Three.")])
def test_the_sentence_around_a_place_goes_from_one_full_stop_to_the_next(word, sentence):
    assert questions.sentence_at(TEXT, TEXT.index(word)) == sentence


def test_a_question_is_put_beside_the_sentence_that_its_answer_begins_in():
    asked = {"question": "Where?", "answers": [{"answer_start": TEXT.index("there"), "text": "there"}]}
    assert questions.pairs_of({"paragraphs": [{"context": TEXT, "qas": [asked]}]}) == [("Where?", "is there.")]


def test_no_group_has_a_sentence_twice_and_no_question_is_in_two():
    pairs = [(f"q{i}", f"s{i % 20}") for i in range(90)]
    groups = questions.grouped(pairs, random.Random(0))
    assert len(groups) >= 4
    assert all(len({sentence for _, sentence in group}) == len(group) == questions.BATCH for group in groups)
    asked = [question for group in groups for question, _ in group]
    assert len(set(asked)) == len(asked)


class Trunk(nn.Module):
    """In place of the trained one: a table of vectors."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 8)

    def forward(self, input_ids, attention_mask):
        assert ((input_ids != 0) == (attention_mask == 1)).all()
        return type("Out", (), {"last_hidden_state": self.table(input_ids)})


def test_padding_does_not_change_a_vector_which_is_of_length_one():
    encoder = questions.Encoder(Trunk())
    short, padded = torch.tensor([[3, 4]]), torch.tensor([[3, 4, 0, 0]])
    torch.testing.assert_close(encoder(short), encoder(padded))
    torch.testing.assert_close(encoder(short).norm(dim=1), torch.ones(1))


def test_the_loss_of_vectors_that_tell_nothing_is_the_log_of_their_number():
    alike = questions.loss(lambda tokens: torch.ones(len(tokens), 4) / 2, (torch.ones(16, 3), torch.ones(16, 5)))
    assert float(alike) == pytest.approx(math.log(16))
    apart = questions.loss(lambda tokens: torch.eye(len(tokens)), (torch.ones(16, 3), torch.ones(16, 5)))
    assert float(apart) == pytest.approx(math.log(1 + 15 * math.exp(-20)), abs=1e-6)


def test_characters_are_numbers_below_the_vocabulary_and_the_target_is_the_next_one():
    tokens = texts.encoded("ab~ \n" + "é√")
    assert tokens.tolist() == [65, 66, 94, 0, 95, 69, 96, 96]  # e, its accent, and what is not in ASCII
    x, y = texts.minibatches(torch.arange(3000), 0)[0]
    assert x.shape == (texts.BATCH, texts.BLOCK)
    assert (y == x + 1).all()


def test_no_character_of_the_second_text_is_in_two_parts(tmp_path):
    for folder, name, size in (("wikitext-2", "valid.txt", 1100), ("tinyshakespeare", "input.txt", 60_000)):
        (tmp_path / folder).mkdir()
        letters = [chr(33 + (i // 600 if size > 2000 else i) % 90) for i in range(size)]
        (tmp_path / folder / name).write_text("".join(letters))
    made = texts.texts(tmp_path, first_steps=1, kept=tmp_path / "gpt.pt")
    again = texts.texts(tmp_path, first_steps=0, kept=tmp_path / "gpt.pt")  # not trained again
    assert change(again.model, made.model) == 0
    parts = [torch.cat([x.flatten() for x, _ in part]) for part in (made.train, made.evaluation, made.held_out)]
    # A letter lasts for 600 characters: parts may share one where they meet, and no more.
    kinds = [set(part.tolist()) for part in parts]
    assert all(len(kinds[i] & kinds[j]) <= 1 for i, j in ((0, 1), (0, 2), (1, 2)))
    assert all(kinds)


# Runs, on a line through a cloud of points.


@pytest.fixture
def transfer():
    torch.manual_seed(0)
    x = torch.randn(60 * 8, 4)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]]) + 0.1 * torch.randn(len(x), 1)
    batches = list(zip(x.split(8), y.split(8), strict=True))

    def loss(model, batch):
        return (model(batch[0]) - batch[1]).square().mean()

    parts = (batches[:40], batches[40:50], batches[50:])
    return Transfer("line", "a line", nn.Linear(4, 1), loss, *parts, rates=(1e-3, 1e-1))


def test_a_grid_s_runs_start_from_the_trained_network_and_leave_it_alone(transfer):
    before = [p.clone() for p in transfer.model.parameters()]
    rows = list(measure.grid(Lines(None, measure.KEY), transfer, 60, 0))
    assert [torch.equal(a, b) for a, b in zip(before, transfer.model.parameters(), strict=True)] == [True, True]
    small, large = rows
    assert large["held_out"] < small["held_out"] < mean_loss(transfer, transfer.model, transfer.held_out)
    assert 0 < small["change"] < large["change"]
    again = measure.run(transfer, 1e-1, 60, 60, 0)
    assert again["held_out"] == large["held_out"]


def test_a_run_that_diverges_is_told_and_never_the_best(transfer):
    rows = [measure.run(transfer, rate, 20, 20, 0) for rate in (1e30, 1e-2)]
    assert math.isnan(rows[0]["held_out"])
    # In a table the lowest rate comes first: what is no number must not be taken for the least, wherever it stands.
    rows = [{**row, "method": "grid", "rate": rate} for row, rate in zip(rows, (1e-3, 1e-2), strict=True)]
    (text,) = tables([{**row, "task": "line", "steps": 20, "seed": 0} for row in rows]).values()
    lines = text.splitlines()
    assert "nan" in lines[2]
    assert "best of training, judges, held out" in lines[3]


@pytest.mark.parametrize("method", measure.SEARCHES)
def test_a_search_is_paid_out_of_the_steps(transfer, method):
    found = measure.search(transfer, method, 400, 0)
    assert found.rate > 0
    row = measure._search_and_run(transfer, method, 400, 0)
    assert row["trained"] == 400 - math.ceil(row["spent"] / 3)
    assert row["peak"] == found.rate
    assert math.isfinite(row["held_out"])


def test_find_peak_is_judged_by_the_minibatches_that_were_kept_for_that(transfer, monkeypatch):
    given = []

    def found(_, optimizer, *__, **named):
        given.append((named["evaluation"], optimizer.param_groups[0]["lr"]))
        return SimpleNamespace(lr=0.1, cost=3.0, low=0.1, high=0.1, fallback=None, to_json=str)

    monkeypatch.setattr(measure, "find_peak", found)
    for method in list(measure.SEARCHES)[:4]:
        measure.search(transfer, method, 100, 0)
    assert given == [(None, 1e-3), (transfer.evaluation, 1e-3), (None, 5e-5), (transfer.evaluation, 5e-5)]


def test_the_change_is_relative_to_the_weights():
    before, after = nn.Linear(3, 1), nn.Linear(3, 1)
    for a, b in zip(after.parameters(), before.parameters(), strict=True):
        a.data.copy_(1.5 * b.data)
    assert change(after, before) == pytest.approx(0.5)
