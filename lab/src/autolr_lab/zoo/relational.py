"""Relations: graph nets on dense adjacency, factorisation of tables, word vectors, and contrastive pairs."""

from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolr_lab.zoo.blocks import classify, mlp, regress
from autolr_lab.zoo.data import digits, drawing, hold_out
from autolr_lab.zoo.task import Batch, Data, Task, usual
from autolr_lab.zoo.text import markov


@cache
def communities(nodes: int = 240, groups: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """A stochastic block model: normalised adjacency, weak features of the nodes, and their groups."""
    generator = drawing("communities")
    group = torch.arange(nodes) % groups
    chance = torch.where(group[:, None] == group, 0.09, 0.02)
    edge = (torch.rand(nodes, nodes, generator=generator) < chance).float().triu(1)
    adjacency = edge + edge.T + torch.eye(nodes)
    degree = adjacency.sum(1).rsqrt()
    features = torch.randn(nodes, 16, generator=generator)
    features[:, :groups] += 0.7 * F.one_hot(group, groups)
    return degree[:, None] * adjacency * degree, features, group


@cache
def labelled_nodes() -> Data:
    """Nodes of the graph and their groups."""
    _, _, group = communities()
    return hold_out((torch.arange(len(group)), group), 80, "labelled nodes")


class GraphNet(nn.Module):
    """Two graph convolutions (Kipf 2017) over the whole graph; the nodes that are asked for are classified."""

    adjacency: Tensor
    features: Tensor

    def __init__(self, width: int = 32, groups: int = 4) -> None:
        super().__init__()
        adjacency, features, _ = communities()
        self.register_buffer("adjacency", adjacency)
        self.register_buffer("features", features)
        self.first, self.second = nn.Linear(features.shape[1], width), nn.Linear(width, groups)

    def forward(self, nodes: Tensor) -> Tensor:
        """(n,) to (n, groups)."""
        hidden = F.dropout(self.adjacency @ self.first(self.features), 0.3, self.training).relu()
        out: Tensor = self.adjacency[nodes] @ self.second(hidden)
        return out


@cache
def triangles(nodes: int = 10) -> Data:
    """Small random graphs, and how many triangles each has (logarithm)."""
    generator = drawing("triangles")
    density = 0.1 + 0.4 * torch.rand(9000, 1, 1, generator=generator)
    edge = (torch.rand(9000, nodes, nodes, generator=generator) < density).float().triu(1)
    adjacency = edge + edge.transpose(1, 2)
    count = torch.diagonal(torch.linalg.matrix_power(adjacency, 3), dim1=1, dim2=2).sum(1, keepdim=True) / 6
    return hold_out((adjacency, count.log1p()), 600, "triangles")


class MessageNet(nn.Module):
    """Two rounds of messages between neighbours, then a sum over the nodes and one number."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.start = nn.Linear(1, width)
        self.rounds = nn.ModuleList(mlp(2 * width, width, width) for _ in range(2))
        self.head = mlp(width, width, 1)

    def forward(self, adjacency: Tensor) -> Tensor:
        """(n, nodes, nodes) to (n, 1)."""
        x = self.start(adjacency.sum(2, keepdim=True) / 4)
        for messages in self.rounds:
            x = x + messages(torch.cat([x, adjacency @ x / 4], dim=2))
        out: Tensor = self.head(x.mean(1))
        return out


@cache
def ratings(users: int = 300, items: int = 200) -> Data:
    """Ratings by users of items: five hidden tastes and noise; a quarter of the table is known."""
    generator = drawing("ratings")
    taste = torch.randn(users, 5, generator=generator) @ torch.randn(5, items, generator=generator) / 5**0.5
    taste = taste + 0.3 * torch.randn(users, items, generator=generator) + 0.5
    known = torch.randperm(users * items, generator=generator)[:16000]
    return hold_out((known // items, known % items, taste.flatten()[known]), 1000, "ratings")


@cache
def clicks() -> Data:
    """Whether a user clicked on an item, from the same tastes as the ratings."""

    def clicked(rows: Batch, generator: torch.Generator) -> Batch:
        return rows[0], rows[1], (torch.rand(len(rows[2]), generator=generator) < torch.sigmoid(3 * rows[2])).float()

    rated, generator = ratings(), drawing("clicks")
    return Data(clicked(rated.train, generator), clicked(rated.held_out, generator))


class Factors(nn.Module):
    """A vector and a bias for each user and each item; their product is the score."""

    def __init__(self, users: int = 300, items: int = 200, width: int = 8) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, width + 1), nn.Embedding(items, width + 1)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """(n,) and (n,) to (n,)."""
        u, i = self.users(user), self.items(item)
        out: Tensor = (u[:, 1:] * i[:, 1:]).sum(1) + u[:, 0] + i[:, 0]
        return out


def rating_error(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error of the ratings."""
    user, item, rating = batch
    return F.mse_loss(model(user, item), rating)


def click_error(model: nn.Module, batch: Batch) -> Tensor:
    """Binary cross-entropy of the clicks."""
    user, item, click = batch
    return F.binary_cross_entropy_with_logits(model(user, item), click)


@cache
def neighbours() -> Data:
    """Pairs of symbols one and two places apart in a Markov language of 60 symbols: centre, and what stands near."""
    (rows,) = markov(symbols=60).train
    centre, near = torch.cat([rows[:, :-1], rows[:, :-2]], 1), torch.cat([rows[:, 1:], rows[:, 2:]], 1)
    chosen = torch.randperm(centre.numel(), generator=drawing("neighbours"))[:30000]
    return hold_out((centre.flatten()[chosen], near.flatten()[chosen]), 1000, "neighbours")


def word_vectors(symbols: int = 60, width: int = 16) -> nn.Module:
    """A vector for each symbol, and a score of it for each neighbour."""
    return nn.Sequential(nn.Embedding(symbols, width), nn.Linear(width, symbols))


def contrast(model: nn.Module, batch: Batch) -> Tensor:
    """InfoNCE: of a batch of noisy, dimmed digits, find the other view of the same one."""
    x = batch[0]
    views = (x * (torch.rand_like(x) > 0.4) + 0.15 * torch.randn_like(x) for _ in range(2))
    first, second = (F.normalize(model(view), dim=1) for view in views)
    return F.cross_entropy(first @ second.T / 0.2, torch.arange(len(x)))


@cache
def unlabelled_digits() -> Data:
    """Digits alone; 128 held out, as many as two minibatches, since the loss depends on how many there are."""
    found = digits()
    return Data(found.train[:1], (found.held_out[0][:128],))


related = partial(Task, kind="relational")

TASKS = (
    related(
        name="communities-gcn",
        data=labelled_nodes,
        build=GraphNet,
        loss=classify,
        batch_size=40,
        rates=usual(adamw=1e-2),
    ),
    related(
        name="triangles-graph",
        data=triangles,
        build=MessageNet,
        loss=regress,
        batch_size=32,
        rates=usual(),
    ),
    related(
        name="ratings-factors",
        data=ratings,
        build=Factors,
        loss=rating_error,
        batch_size=128,
        rates=usual(adagrad=0.1),
        horizons=(300, 2400),
    ),
    related(
        name="clicks-factors",
        data=clicks,
        build=Factors,
        loss=click_error,
        batch_size=128,
        rates=usual(adagrad=0.1),
        horizons=(300, 2400),
    ),
    related(
        name="word-vectors",
        data=neighbours,
        build=word_vectors,
        loss=classify,
        batch_size=128,
        rates=usual(),
        horizons=(300, 2400),
    ),
    related(
        name="contrastive-digits",
        data=unlabelled_digits,
        build=partial(mlp, 64, 64, 16),
        loss=contrast,
        batch_size=64,
        rates=usual(rmsprop=1e-3),
        horizons=(300, 2400),
    ),
)
