"""The Transformer: what it may see, against torch's own layers, and that its steps are its whole."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autolr_lab.workloads.beam_search import PAD, START
from autolr_lab.workloads.transformer import Sizes, Transformer, waves

TINY = Sizes(vocabulary=13, layers=2, heads=2, width=8, inner=12, dropout=0.0)


def transformer(sizes=TINY, seed=0):
    torch.manual_seed(seed)
    return Transformer(sizes).double()


def tokens(n, t, seed=0):
    return torch.randint(3, TINY.vocabulary, (n, t), generator=torch.Generator().manual_seed(seed))


def padded(sentences, more):
    return torch.cat([sentences, torch.full((len(sentences), more), PAD)], dim=1)


# What it may see.


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_a_later_target_token_changes_nothing_before_it_and_something_after(training):
    model = transformer().train(training)
    source, seen = tokens(3, 5), tokens(3, 9, seed=1)
    changed = seen.clone()
    changed[:, 4] = 3 + (changed[:, 4] - 2) % 10
    before, after = model(source, seen), model(source, changed)
    assert torch.allclose(before[:, :4], after[:, :4], rtol=0, atol=1e-12)
    assert all(float((before[:, t] - after[:, t]).abs().max()) > 1e-5 for t in range(4, 9))


@torch.no_grad()
def test_every_source_token_is_seen_from_every_target_place_and_so_is_its_own_place():
    model, source, target = transformer(), tokens(1, 5), tokens(1, 4, seed=1)
    plain = model(source, target)
    for s in range(5):
        changed = source.clone()
        changed[0, s] = 3 + (changed[0, s] - 2) % 10
        assert float((model(changed, target) - plain).abs().amax(2).min()) > 1e-6, s
    assert float((model(source.flip(1), target) - plain).abs().amax(2).min()) > 1e-6


@settings(max_examples=25)
@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3))
def test_padding_changes_no_logit_no_loss_and_no_gradient(more_source, more_target, seed):
    def run(source, target):
        model = transformer(seed=seed)
        logits = model(source, target[:, :-1])
        loss = F.cross_entropy(
            logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD, reduction="sum", label_smoothing=0.1
        )
        loss.backward()
        return [logits[:, :5].detach(), loss.detach(), *(p.grad for p in model.parameters())]

    source, target = tokens(3, 4, seed), tokens(3, 6, seed + 9)
    for a, b in zip(run(source, target), run(padded(source, more_source), padded(target, more_target)), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


# What it is.


@torch.no_grad()
def test_it_computes_what_torchs_own_layers_do_with_the_same_weights():
    model = transformer()
    for parameter in model.parameters():  # biases and LayerNorms begin where some errors do not show
        parameter.add_(0.1 * torch.randn_like(parameter))

    def attention(ours, theirs):
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.add.state_dict())

    setting = {"d_model": 8, "nhead": 2, "dim_feedforward": 12, "dropout": 0.0, "batch_first": True}
    source, target = padded(tokens(3, 5), 2), tokens(3, 6, seed=1)
    x = math.sqrt(8) * model.source(source) + waves(torch.arange(7.0).double(), 8)
    for ours in model.encoder:
        theirs = nn.TransformerEncoderLayer(**setting).double()
        attention(ours.itself, theirs.self_attn)
        theirs.norm1.load_state_dict(ours.itself.norm.state_dict())
        theirs.linear1.load_state_dict(ours.perceptron.mix.state_dict())
        theirs.linear2.load_state_dict(ours.perceptron.add.state_dict())
        theirs.norm2.load_state_dict(ours.perceptron.norm.state_dict())
        x = theirs(x, src_key_padding_mask=source == PAD)
    y = math.sqrt(8) * model.target(target) + waves(torch.arange(6.0).double(), 8)
    future = torch.ones(6, 6, dtype=torch.bool).triu(1)
    for ours in model.decoder:
        theirs = nn.TransformerDecoderLayer(**setting).double()
        attention(ours.itself, theirs.self_attn)
        attention(ours.across, theirs.multihead_attn)
        theirs.norm1.load_state_dict(ours.itself.norm.state_dict())
        theirs.norm2.load_state_dict(ours.across.norm.state_dict())
        theirs.linear1.load_state_dict(ours.perceptron.mix.state_dict())
        theirs.linear2.load_state_dict(ours.perceptron.add.state_dict())
        theirs.norm3.load_state_dict(ours.perceptron.norm.state_dict())
        y = theirs(y, x, tgt_mask=future, memory_key_padding_mask=source == PAD)
    assert torch.allclose(model(source, target), y @ model.target.weight.T, rtol=0, atol=1e-10)


def test_positions_are_the_sines_and_cosines_of_vaswani_et_al():
    ours = waves(torch.arange(50, dtype=torch.float64), 6)
    for place in range(50):
        for i in range(3):
            angle = place / 10_000 ** (2 * i / 6)
            assert ours[place, i].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert ours[place, 3 + i].item() == pytest.approx(math.cos(angle), abs=1e-12)


def counted(sizes):
    # By hand: two embeddings; four matrices an attention, of which a decoder layer has two; a perceptron; LayerNorms.
    w, attention, perceptron = sizes.width, 4 * (sizes.width**2 + sizes.width), 2 * sizes.width * sizes.inner
    perceptron += sizes.width + sizes.inner
    layers = sizes.layers * (3 * attention + 2 * perceptron + 5 * 2 * w)
    return 2 * sizes.vocabulary * w + layers


@pytest.mark.parametrize("sizes", [TINY, dataclasses.replace(TINY, layers=1, width=12, inner=8), Sizes()])
def test_it_has_as_many_parameters_as_counted_by_hand(sizes):
    with torch.device("meta"):
        assert sum(p.numel() for p in Transformer(sizes).parameters()) == counted(sizes)


@torch.no_grad()
def test_weights_begin_as_fairseqs():
    sizes = Sizes(vocabulary=500, layers=1, heads=4, width=128, inner=64)
    for name, parameter in transformer(sizes).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        elif name in {"source.weight", "target.weight"}:
            assert float(parameter.std()) == pytest.approx(128**-0.5, rel=0.02), name
        else:
            outs, ins = parameter.shape
            bound = math.sqrt(6 / (ins + (3 * outs if name.split(".")[-2] in {"query", "key", "value"} else outs)))
            assert 0.98 * bound < float(parameter.abs().max()) <= bound, name


def test_dropout_is_on_the_embeddings_and_on_what_each_part_adds_and_nowhere_else():
    model, dropped = transformer(dataclasses.replace(TINY, dropout=0.5)), []
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda _m, _i, _o, name=name: dropped.append(name))
    model(tokens(2, 4), tokens(2, 5))
    encoder = [f"encoder.{i}.{part}.dropout" for i in range(2) for part in ("itself", "perceptron")]
    decoder = [f"decoder.{i}.{part}.dropout" for i in range(2) for part in ("itself", "across", "perceptron")]
    assert dropped == ["dropout", *encoder, "dropout", *decoder]


# Token by token.


@torch.no_grad()
def test_step_by_step_it_says_what_it_says_of_the_whole():
    model, source = transformer(), padded(tokens(2, 5), 2)
    source[1, 3:] = PAD
    said = torch.cat([torch.full((2, 3, 1), START), tokens(6, 6, seed=1).view(2, 3, 6)], dim=2)
    decoding = model.decode(source)
    for length in range(7):
        now = decoding.next(said[:, :, length])
        for i in range(3):
            whole = model(source, said[:, i, : length + 1])[:, -1].log_softmax(1)
            assert torch.allclose(now[:, i], whole, rtol=0, atol=1e-12), (length, i)


@torch.no_grad()
def test_after_going_on_with_some_it_goes_on_with_those():
    model, source = transformer(), padded(tokens(3, 5), 2)
    source[2, 3:] = PAD
    said = torch.cat([torch.full((3, 2, 1), START), tokens(6, 2, seed=1).view(3, 2, 2)], dim=2)
    decoding = model.decode(source)
    for length in range(3):
        decoding.next(said[:, :, length])
    sentences, parents = torch.tensor([0, 2]), torch.tensor([[1, 1], [1, 0]])
    decoding.keep(sentences, parents)
    said = torch.cat([said[sentences.unsqueeze(1), parents], tokens(4, 1, seed=2).view(2, 2, 1)], dim=2)
    now = decoding.next(said[:, :, 3])
    for i in range(2):
        whole = model(source[sentences], said[:, i])[:, -1].log_softmax(1)
        assert torch.allclose(now[:, i], whole, rtol=0, atol=1e-12), i
