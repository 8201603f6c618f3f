"""Recurrent nets: LSTM, GRU and the plain one, on text, artificial languages, sums and waves."""

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn

from autolr_lab.zoo.blocks import next_token, regress
from autolr_lab.zoo.data import drawing, hold_out
from autolr_lab.zoo.task import Data, Task, usual
from autolr_lab.zoo.text import brackets, character_names, markov, zen


class TokenNet(nn.Module):
    """Embedding, recurrent layer, and scores for the next token at each place."""

    def __init__(self, cell: Callable[..., nn.RNNBase], symbols: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, width)
        self.recurrent = cell(width, width, batch_first=True)
        self.head = nn.Linear(width, symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, length) to (n, length, symbols)."""
        out: Tensor = self.head(self.recurrent(self.embed(tokens))[0])
        return out


class SequenceNet(nn.Module):
    """A recurrent layer over vectors, and one number from its last state."""

    def __init__(self, cell: Callable[..., nn.RNNBase], inputs: int, width: int) -> None:
        super().__init__()
        self.recurrent = cell(inputs, width, batch_first=True)
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, inputs) to (n, 1)."""
        out: Tensor = self.head(self.recurrent(x)[0][:, -1])
        return out


@cache
def marked_sum(length: int = 10) -> Data:
    """The adding problem: the sum of the two numbers of a row that are marked."""
    generator = drawing("marked sum")
    numbers = torch.rand(9000, length, generator=generator)
    marked = torch.rand(9000, length, generator=generator).topk(2, dim=1).indices
    marks = torch.zeros(9000, length).scatter_(1, marked, 1.0)
    return hold_out((torch.stack([numbers, marks], dim=2), (numbers * marks).sum(1, keepdim=True)), 300, "marked sum")


@cache
def waves(length: int = 10) -> Data:
    """Two sines with noise: the value two places after the last one that is seen."""
    generator = drawing("waves")
    speed, phase = (torch.rand(2, 9000, 1, generator=generator) for _ in range(2))
    time = torch.arange(float(length + 2))
    curve = torch.sin((0.2 + speed[0]) * time + 6.3 * phase[0]) + 0.5 * torch.sin((0.5 + speed[1]) * time + phase[1])
    seen = curve[:, :length] + 0.1 * torch.randn(9000, length, generator=generator)
    return hold_out((seen[:, :, None], curve[:, -1:]), 300, "waves")


recurrent = partial(Task, kind="recurrent")

TASKS = (
    recurrent(
        name="names-gru",
        data=character_names,
        build=partial(TokenNet, nn.GRU, 29, 48),
        loss=next_token,
        batch_size=16,
        rates=usual(sgd=1.0, momentum=0.1),
    ),
    recurrent(
        name="zen-lstm",
        data=zen,
        build=partial(TokenNet, nn.LSTM, 45, 32),
        loss=next_token,
        batch_size=16,
        rates=usual(sgd=1.0, momentum=0.1, rmsprop=1e-3),
    ),
    recurrent(
        name="markov-rnn",
        data=markov,
        build=partial(TokenNet, nn.RNN, 12, 48),
        loss=next_token,
        batch_size=16,
        rates=usual(momentum=0.1),
    ),
    recurrent(
        name="brackets-lstm",
        data=brackets,
        build=partial(TokenNet, nn.LSTM, 6, 32),
        loss=next_token,
        batch_size=16,
        rates=usual(momentum=0.1),
    ),
    recurrent(
        name="adding-lstm",
        data=marked_sum,
        build=partial(SequenceNet, nn.LSTM, 2, 24),
        loss=regress,
        batch_size=32,
        rates=usual(),
    ),
    recurrent(
        name="waves-gru",
        data=waves,
        build=partial(SequenceNet, nn.GRU, 1, 24),
        loss=regress,
        batch_size=32,
        rates=usual(rmsprop=1e-3),
    ),
)
