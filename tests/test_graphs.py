"""Graphs that a model holds from one step to the next: none is gone through twice, and each is where it was."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import autolr
from autolr.measure.graphs import cut_graphs
from training_runs import seed_everything


class Recurrent(nn.Module):
    """Carries its state to the next minibatch, in an attribute, in a container or in a buffer."""

    def __init__(self, place):
        super().__init__()
        self.cell, self.out, self.place = nn.RNNCell(8, 8), nn.Linear(8, 3), place
        if place == "buffer":
            self.register_buffer("state", torch.zeros(16, 8))
        else:
            self.state = self.pack(torch.zeros(16, 8))

    def pack(self, state):
        return {"attribute": state, "buffer": state, "tuple": (state, [state]), "dict": {"h": state}}[self.place]

    @property
    def hidden(self):
        return {"tuple": lambda: self.state[1][0], "dict": lambda: self.state["h"]}.get(
            self.place, lambda: self.state
        )()

    def forward(self, x):
        self.state = self.pack(self.cell(x, self.hidden))
        return self.out(self.hidden)


def loss_fn(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def adversarial(model, batch):
    """Goes backward through the model inside."""
    x = batch[0].clone().requires_grad_()
    before = model.state
    loss = loss_fn(model, (x, batch[1]))
    loss.backward()
    model.state = before
    return loss_fn(model, (x.detach() + 0.1 * x.grad.sign(), batch[1]))


def data():
    x = torch.randn(24, 16, 8, generator=torch.Generator().manual_seed(1))
    return [(x, x[:, :3].argmax(1)) for x in x]


PLACES = ["attribute", "tuple", "dict", "buffer"]


def trained(place, tune, loss=loss_fn):
    """A loop that cuts the graph itself, after its step; whether the state stayed the same object through ``step``."""
    seed_everything(0)
    model = Recurrent(place)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = tune(base, model, loss)
    for batch in data():
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        state, values = model.state, model.hidden.detach().clone()
        optimizer.step()
        assert model.state is state
        assert torch.equal(model.hidden, values)
        model.state = model.pack(model.hidden.detach())
    return optimizer


@pytest.mark.parametrize("own_step", [False, True], ids=["loss_fn", "train_step"])
@pytest.mark.parametrize("place", PLACES)
def test_a_search_in_a_loop_that_cuts_its_graph_after_the_step_goes_through_none_twice(place, own_step):
    def tune(base, model, loss):
        def train_step(batch):
            base.zero_grad()
            measured = loss(model, batch)
            measured.backward()
            base.step()
            model.state = model.pack(model.hidden.detach())
            return measured

        search = {"train_step": train_step} if own_step else {}
        return autolr.AutoLR(base, model, loss, data(), 300, search=search)

    assert trained(place, tune).history[0].search is not None


@pytest.mark.parametrize("place", PLACES)
def test_a_look_at_a_loss_that_goes_backward_itself_goes_through_none_twice(place):
    def tune(base, model, loss):
        return autolr.AutoLR(base, model, loss, data(), 24, policy=autolr.Monitor(window=4, superbatch=2))

    assert trained(place, tune, adversarial).history


def test_what_has_no_graph_stays_the_very_object():
    module = Recurrent("tuple")
    module.many, module.loop = list(range(5)), []
    module.loop.append(module.loop)
    before = dict(vars(module))
    cut_graphs([module])
    assert all(vars(module)[name] is value for name, value in before.items())


def test_parameters_that_are_made_in_a_pass_stay_in_the_dict_that_the_module_has():
    model = nn.Linear(2, 1)
    names = model._parameters
    with torch.enable_grad():
        names["weight"] = model.bias * 2
    cut_graphs([model])
    assert vars(model)["_parameters"] is names
