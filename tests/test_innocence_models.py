"""Models that keep state in their forward pass: a probe leaves it as training left it, to the bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

import autolr
from training_runs import (
    Script,
    assert_innocent,
    classification,
    cross_entropy,
    differences,
    full_print,
    network,
    run,
    seed_everything,
    shuffling,
    tuned_by,
)

O = torch.optim  # noqa: E741


# Models that keep state in their forward pass
class Replacing(nn.Module):
    """Puts a new tensor under a buffer's name instead of writing into the old one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("seen", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        self.seen = x.detach().sum(0)
        return self.inner(x - self.mean)


class Registering(nn.Module):
    """Registers its first buffer in its first forward pass, from the data it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "shift"):
            self.register_buffer("shift", x.detach().mean(0))
        return self.inner(x - self.shift)


class Centred(nn.Module):
    """Registers its first buffer inside a layer that has none before."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = Registering(), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.first(x))


class Resizing(nn.Module):
    """Sizes an empty buffer in place in its first forward pass, as quantization observers do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.register_buffer("low", torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        low = x.detach().amin(0)
        if self.low.numel() == 0:
            self.low.resize_(low.shape).copy_(low)
        self.low.copy_(torch.minimum(self.low, low))
        return self.inner(x - 0.1 * self.low)


class MaxNorm(nn.Module):
    """``nn.Embedding(max_norm=...)`` writes into its own *parameter* in each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 6, max_norm=0.5)
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        words = (x[:, :3].abs() * 5).long().clamp(max=15)
        return self.inner(self.embedding(words).mean(1) + x)


class Codebook(nn.Module):
    """Puts new *parameters* in the place of its own, as a VQ-VAE does that averages its codes."""

    def __init__(self) -> None:
        super().__init__()
        self.codes, self.inner = nn.Embedding(4, 6), network()
        self.sums = nn.Parameter(torch.randn(4, 6))
        self.register_buffer("size", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        nearest = F.one_hot(torch.cdist(x, self.codes.weight).argmin(1), 4).float()
        if self.training:
            self.size = 0.9 * self.size + 0.1 * nearest.detach().sum(0)
            self.sums = nn.Parameter(0.9 * self.sums + 0.1 * nearest.T @ x.detach())
            self.codes.weight = nn.Parameter(self.sums / self.size[:, None])
        return self.inner(x + nearest @ self.codes.weight)


class Growing(nn.Module):
    """Gets a layer more, and another first one, in each forward pass, up to eight."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.first, self.layers = network(), nn.Linear(6, 6), nn.ModuleList()

    def forward(self, x: Tensor) -> Tensor:
        if len(self.layers) < 8:
            self.first = nn.Linear(6, 6)
            self.layers.append(nn.Linear(6, 6))
        for layer in (self.first, *self.layers):
            x = x + 0.1 * layer(x)
        return self.inner(x)


class Expanded(nn.Module):
    """One number that stands for six, in a buffer and in an attribute, written into where it is one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.shift = network(), torch.zeros(1).expand(6)
        self.register_buffer("scale", torch.ones(2, 1).expand(2, 6))

    def forward(self, x: Tensor) -> Tensor:
        self.scale[:, :1].mul_(0.9)
        self.shift.data[:1].add_(x.detach().mean())
        return self.inner(x * self.scale[0] + self.shift)


def spectral_of_old() -> nn.Module:
    return nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 10)), nn.Tanh(), nn.Linear(10, 2))


def spectral_of_new() -> nn.Module:
    new = nn.utils.parametrizations.spectral_norm
    return nn.Sequential(new(nn.Linear(6, 10), n_power_iterations=2), nn.Tanh(), new(nn.Linear(10, 2)))


def frozen_norm() -> nn.Module:
    model = network()
    model[1].eval()
    return model


def recurrent() -> nn.Module:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(2, 5, num_layers=2, dropout=0.4, batch_first=True)
            self.head = nn.utils.parametrizations.weight_norm(nn.Linear(5, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x.reshape(-1, 3, 2))[0][:, -1])

    return Recurrent()


MODELS = {
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)),
    "batch norm, cumulative": lambda: nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8, momentum=None), nn.ReLU(), nn.Linear(8, 2)
    ),
    "batch norm in eval mode": frozen_norm,
    "dropout": lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2)),
    "spectral norm, hooks": spectral_of_old,
    "spectral norm, parametrized": spectral_of_new,
    "recurrent, weight norm": recurrent,
    "buffer replaced": Replacing,
    "buffer registered late": Registering,
    "buffer registered late in a layer": Centred,
    "buffer resized": Resizing,
    "embedding with max_norm": MaxNorm,
    "parameters replaced": Codebook,
    "modules replaced and appended": Growing,
    "buffer expanded": Expanded,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_forward_pass_that_changes_the_model_changes_it_only_in_training(name: str):
    assert_innocent(model=MODELS[name])


def stand_still(model: nn.Module, opt: Optimizer, steps: int) -> None:
    """Steps that move nothing: what changes, a probe has changed."""
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for _ in range(steps):
        opt.step()


@pytest.mark.parametrize("name", MODELS)
def test_making_an_optimizer_and_probing_while_standing_still_change_nothing(name: str):
    seed_everything(1)
    model = MODELS[name]()
    base = O.SGD(model.parameters(), lr=0.1)
    stand_still(model, base, 0)
    before = full_print(model, base)
    opt = tuned_by(base, model, cross_entropy, shuffling(), 9, policy=autolr.Monitor(), window=1, superbatch=4)
    assert differences(before, full_print(model, opt)) == []
    stand_still(model, opt, 4)
    assert len(opt.history) == 4
    assert differences(before, full_print(model, opt)) == []


@pytest.mark.parametrize("name", ["parameters replaced", "modules replaced and appended", "buffer expanded"])
@pytest.mark.parametrize("trained", [0, 3])
@pytest.mark.filterwarnings("ignore:No rate is expected")
def test_a_search_leaves_the_very_objects_that_stood_under_their_names(name: str, trained: int):
    seed_everything(1)
    model = MODELS[name]()
    base = O.SGD(model.inner.parameters(), lr=0.1, momentum=0.9)
    data = [batch for _, batch in zip(range(6), shuffling(), strict=False)]
    for batch in data[:trained]:
        cross_entropy(model, batch).backward()
        base.step()
    before, objects = full_print(model, base), named_objects(model)
    autolr.find_peak(model, base, cross_entropy, data, 300)
    assert differences(before, full_print(model, base)) == []
    assert named_objects(model) == objects


def named_objects(model: nn.Module) -> list[tuple[str, int]]:
    found = (*model.named_modules(), *model.named_parameters(), *model.named_buffers())
    return [(name, id(value)) for name, value in found]


def test_a_rollback_goes_back_in_an_expanded_buffer():
    done = run(tuned=True, model=Expanded, policy=Script(verdicts=("look", "roll back")), steps=6)
    assert done.prints[2]["buffer/.scale"] == done.prints[5]["buffer/.scale"] != done.prints[4]["buffer/.scale"]


def test_a_model_in_eval_mode_is_probed_in_eval_mode():
    def evaluated() -> nn.Module:
        return network().eval()

    done = assert_innocent(model=evaluated)
    assert not any(module.training for module in done.model.modules())


@pytest.mark.parametrize("spread", [1, 2])
def test_dropout_has_one_mask_for_every_eps_and_another_for_the_next_probe(spread: int):
    seed_everything(0)
    model = network()
    opt = tuned_by(
        O.SGD(model.parameters(), lr=0.1),
        model,
        cross_entropy,
        [classification()[:8]] * 4,
        30,
        policy=autolr.Monitor(spread=spread),
        window=1,
        superbatch=4,
    )
    stand_still(model, opt, 10)
    assert len(opt.history) >= 5
    assert all(len(set(record.losses)) == 1 for record in opt.history)
    assert len({record.losses for record in opt.history}) == len(opt.history)
