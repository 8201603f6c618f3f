"""Shakespeare: a text cut right, a model that cannot look ahead, and a workload whose metric is no accuracy."""

import dataclasses
import math
import string

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autolr_lab.training.optimizers import OPTIMIZERS
from autolr_lab.training.runs import Settings, read_run
from autolr_lab.training.training import train
from autolr_lab.workloads import WORKLOADS, MissingDataError
from autolr_lab.workloads.shakespeare import Gpt, Sizes, load_shakespeare
from autolr_lab.workloads.workload import loader
from helpers import real

CPU = torch.device("cpu")
SHAKESPEARE = WORKLOADS["shakespeare"]
TINY = Sizes(vocabulary=11, block=16, layers=2, heads=2, width=8)


def gpt(sizes=TINY, seed=0):
    torch.manual_seed(seed)
    return Gpt(sizes)


def tokens(n, t, vocabulary=TINY.vocabulary, seed=0):
    return torch.randint(vocabulary, (n, t), generator=torch.Generator().manual_seed(seed))


# The text.

CHARACTERS = string.ascii_letters + string.digits + " \n."  # 65 of them, as in the plays


def write_text(folder, n=12_800):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(CHARACTERS[i * i % 65 if i > 65 else i % 65] for i in range(n))
    (folder / "input.txt").write_text(text, encoding="utf8")
    return text


@pytest.mark.parametrize("folder", ["tinyshakespeare", "."])
def test_nine_tenths_train_in_blocks_that_do_not_overlap_and_every_target_is_the_next_character(tmp_path, folder):
    text = write_text(tmp_path / folder)
    train_data, test_data = load_shakespeare(tmp_path)
    alphabet = sorted(CHARACTERS)
    for data, part in ((train_data, text[:11_520]), (test_data, text[11_520:])):
        inputs, targets = ("".join(alphabet[i] for i in column.flatten().tolist()) for column in data.tensors)
        n = (len(part) - 1) // 128
        assert [tuple(column.shape) for column in data.tensors] == [(n, 128)] * 2
        assert inputs == part[: 128 * n]
        assert targets == part[1 : 128 * n + 1]
    assert (len(train_data), len(test_data)) == (89, 9)  # of 90 and 10: the last character has none that follows


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"", "0 different characters, not 65", id="empty"),
        pytest.param(b"To be, or not to be" * 1000, "different characters, not 65", id="another text"),
    ],
)
def test_a_text_that_is_another_one_is_refused_with_what_is_wrong(tmp_path, content, told):
    (tmp_path / "input.txt").write_bytes(content)
    with pytest.raises(MissingDataError, match=r"input\.txt is not what it should be") as refused:
        load_shakespeare(tmp_path)
    assert told in str(refused.value)


@pytest.mark.data
def test_the_plays_have_the_published_length_and_begin_and_end_as_they_do():
    real("tinyshakespeare", "input.txt")
    train_data, test_data = load_shakespeare(real())
    # 1,115,394 characters: 1,003,854 and 111,540, in blocks of 128 that need one more to follow.
    assert (len(train_data), len(test_data)) == (7842, 871)
    alphabet = sorted("\n !$&',-.3:;?" + string.ascii_letters)
    first = "".join(alphabet[i] for i in train_data.tensors[0][0].tolist())
    assert first.startswith("First Citizen:\nBefore we proceed any further, hear me speak.")


# The model.


@pytest.mark.parametrize(("name", "layers", "width"), [("shakespeare", 4, 128), ("shakespeare-10m", 6, 384)])
def test_the_models_have_as_many_parameters_as_counted_by_hand(name, layers, width):
    # Two embeddings; a layer's four matrices of 3, 1, 4 and 4 w^2, their biases, two LayerNorms; the last one.
    counted = (65 + 128) * width + layers * (12 * width**2 + 9 * width + 4 * width) + 2 * width
    assert sum(p.numel() for p in WORKLOADS[name].model().parameters()) == counted


def test_a_model_gives_the_logits_of_the_next_token_at_each_place_and_begins_at_chance():
    torch.manual_seed(0)
    model, batch = SHAKESPEARE.model(), (tokens(4, 128, 65), tokens(4, 128, 65, seed=1))
    assert model(batch[0]).shape == (4, 128, 65)
    assert model(batch[0][:, :5]).shape == (4, 5, 65)
    loss = SHAKESPEARE.loss(model, batch)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(math.log(65), abs=0.1)


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_a_later_token_changes_nothing_before_it_and_something_after(training):
    model = gpt().train(training)
    seen = tokens(3, 16)
    changed = seen.clone()
    changed[:, 9] = (changed[:, 9] + 1) % TINY.vocabulary
    before, after = model(seen), model(changed)
    assert torch.allclose(before[:, :9], after[:, :9], rtol=0, atol=1e-7)  # float32 of logits below 1
    assert all(float((before[:, t] - after[:, t]).abs().max()) > 1e-5 for t in range(9, 16))


def test_attention_is_the_softmax_of_scaled_products_over_what_came_before():
    # The layer's own attention, term by term, for one head.
    attention = gpt().layers[0].attention[1].double()
    x = torch.randn(1, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    query, key, value = attention.mix(x)[0].split(8, dim=1)
    rows = []
    for t in range(5):
        heads = []
        for columns in (slice(0, 4), slice(4, 8)):
            scores = key[: t + 1, columns] @ query[t, columns] / 2  # the root of 4, the width of a head
            heads.append(scores.softmax(0) @ value[: t + 1, columns])
        rows.append(torch.cat(heads))
    assert torch.allclose(attention(x)[0], attention.add(torch.stack(rows)))


def test_the_input_and_the_output_embedding_are_one_tensor_also_after_a_step_and_in_a_checkpoint():
    model = gpt()
    assert model.head.weight is model.token.weight
    assert sum(p is model.token.weight for p in model.parameters()) == 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    F.cross_entropy(model(tokens(2, 16)).flatten(0, 1), tokens(2, 16, seed=1).flatten()).backward()
    optimizer.step()
    assert model.head.weight is model.token.weight
    copy = gpt(seed=1)
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy(tokens(2, 16)), model(tokens(2, 16)))


@torch.no_grad()
def test_weights_begin_as_gpt_2s():
    model = gpt(Sizes(layers=8))
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            deviation = 0.02 / 4 if ".add." in name else 0.02  # two times eight parts add to the stream
            assert float(parameter.std()) == pytest.approx(deviation, rel=0.05), name
        else:
            assert torch.equal(parameter, torch.full_like(parameter, not name.endswith("bias"))), name


def test_dropout_is_off_by_default_and_in_evaluation_and_on_where_asked_for():
    seen = tokens(2, 16)
    plain, dropping = gpt(), gpt(dataclasses.replace(TINY, dropout=0.5))
    assert torch.equal(plain(seen), plain(seen))
    assert not torch.equal(dropping(seen), dropping(seen))
    assert torch.equal(dropping.eval()(seen), plain.eval()(seen))


# The workload.


@pytest.mark.parametrize(("kind", "bar"), [("sgd", 0.8), ("momentum", 0.7), ("adam", 0.7), ("adamw", 0.7)])
def test_a_few_steps_at_the_seed_rate_lower_the_loss(kind, bar):
    # A line of the play over and over: what follows is known after a few characters. It begins at ln 65 = 4.2; knowing
    # its 17 letters alone gives ln 17 = 2.8, which is 0.68 of that. Bar: most of the way there in thirty steps.
    torch.manual_seed(0)
    model = Gpt(Sizes(block=32, layers=2, width=64))
    optimizer = OPTIMIZERS[kind](model.parameters(), SHAKESPEARE.rate(kind))
    text = torch.tensor([ord(c) % 65 for c in "What's in a name? That which we call a rose " * 6])
    batch = text[:256].view(8, 32), text[1:257].view(8, 32)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = SHAKESPEARE.loss(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < bar * losses[0]


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_evaluation_is_the_mean_over_tokens_and_perplexity_its_exponential(batch_size):
    model = gpt(dataclasses.replace(TINY, dropout=0.5)).train()
    data = torch.utils.data.TensorDataset(tokens(7, 16), tokens(7, 16, seed=1))
    batches = list(loader(data, batch_size))
    generator = torch.get_rng_state()
    seen = SHAKESPEARE.evaluate(model, batches, CPU)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(module.training for module in model.modules())
    model.eval()
    chances = model(data.tensors[0]).double().softmax(2).gather(2, data.tensors[1].unsqueeze(2))
    assert seen == pytest.approx({"loss": -chances.log().mean().item(), "perplexity": seen["perplexity"]}, rel=1e-6)
    assert seen["perplexity"] == pytest.approx(math.exp(seen["loss"]))


class Diverged(nn.Module):
    def forward(self, inputs):
        return F.one_hot(inputs, 5) * 1e4


def test_the_perplexity_of_a_model_that_diverged_is_infinite_and_not_an_error():
    seen = SHAKESPEARE.evaluate(Diverged(), [(torch.zeros(1, 3).long(), torch.ones(1, 3).long())], CPU)
    assert seen == {"loss": 1e4, "perplexity": math.inf}


def test_a_run_is_logged_by_the_metrics_that_it_has(tmp_path, monkeypatch):
    write_text(tmp_path / "tinyshakespeare")
    small = dataclasses.replace(SHAKESPEARE, model=lambda: gpt(Sizes(layers=1, heads=1, width=8)))
    monkeypatch.setitem(WORKLOADS, "shakespeare", small)
    settings = Settings("shakespeare", "adamw", "fixed", 1e-3, 2, 4, 0, data_dir=str(tmp_path))
    result = train(settings, tmp_path / "run")
    assert {key for key in read_run(tmp_path / "run").epochs[0] if key.startswith("test_")} == {
        "test_loss", "test_perplexity",
    }  # fmt: skip
    assert result["test_perplexity"] == pytest.approx(math.exp(result["test_loss"]))
