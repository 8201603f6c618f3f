"""The line through a step: where the parameters go, that they come back to the bit, and what is held meanwhile."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import autolr
from autolr.measure.step_line import StepLine
from training_runs import BATCHES_OF_LINES, cross_entropy

POINTS = st.sampled_from([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0])


def stepped(dtype=torch.float32, seed=0, step=1e-2):
    """A line through a step, with the parameters before and after it."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [torch.randn(shape, generator=generator).to(dtype) for shape in ((7, 5), (3,), (2, 3, 4))]
    line = StepLine(parameters)
    before = [p.clone() for p in parameters]
    for p in parameters:
        p.add_(step * torch.randn(p.shape, generator=generator).to(dtype))
    return line, parameters, before, [p.clone() for p in parameters]


@settings(deadline=None)
@given(st.lists(POINTS, max_size=12), st.integers(0, 100))
def test_wherever_it_has_been_the_parameters_come_back_to_the_bit(points, seed):
    line, parameters, _, after = stepped(seed=seed)
    for eps in points:
        line.to(eps)
        if eps == 0:
            assert all(torch.equal(p, a) for p, a in zip(parameters, after, strict=True))
    line.back()
    assert all(torch.equal(p, a) for p, a in zip(parameters, after, strict=True))


def test_a_line_can_be_gone_along_again_after_it_was_left():
    line, parameters, before, after = stepped()
    for _ in range(2):
        line.to(0.5)
        line.back()
        line.back()
        assert all(torch.equal(p, a) for p, a in zip(parameters, after, strict=True))
        for p, b, a in zip(parameters, before, after, strict=True):
            line.to(-0.5)
            torch.testing.assert_close(p.double(), (a.double() + b.double()) / 2, rtol=0, atol=1e-5)
        line.back()


@settings(deadline=None)
@given(st.lists(POINTS, min_size=1, max_size=12), st.integers(0, 100))
def test_a_point_is_where_eq_1_has_it_within_rounding(points, seed):
    line, parameters, before, after = stepped(seed=seed)
    for eps in points:
        line.to(eps)
        for p, b, a in zip(parameters, before, after, strict=True):
            torch.testing.assert_close(p.double(), a.double() + eps * (a.double() - b.double()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_ends_of_the_step_are_exact_and_so_is_twice_the_step_where_the_exponent_stays(dtype):
    line, parameters, before, after = stepped(dtype)
    line.to(-1.0)
    assert all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))
    line.to(1.0)
    same, there = 0, 0
    for p, b, a in zip(parameters, before, after, strict=True):
        exact = 2 * a.double() - b.double()
        same += int((p.double() == exact).sum())
        there += p.numel()
        torch.testing.assert_close(p.double(), exact, rtol=torch.finfo(dtype).eps, atol=0)
    assert same >= 0.9 * there


def test_it_knows_whether_the_step_moved_anything():
    assert stepped()[0].moved()
    assert not stepped(step=0.0)[0].moved()


@pytest.mark.parametrize("eps", [-1.0, -0.5, 0.5])
def test_a_step_that_gives_a_parameter_other_memory_is_a_step(eps):
    (line, parameters, before, after), (same, in_place, *_) = stepped(), stepped()
    for p, a in zip(parameters, after, strict=True):
        p.data = a.clone()
    assert line.moved()
    for each in (line, same):
        each.to(eps)
    assert all(map(torch.equal, parameters, in_place))
    line.back()
    assert all(map(torch.equal, parameters, after))
    for p, b in zip(parameters, before, strict=True):
        p.data = b.clone()
    assert StepLine(parameters).moved() is False


class Stepping(torch.optim.Optimizer):
    """Plain gradient descent, into the parameters' memory or into new one."""

    def __init__(self, parameters, anew):
        super().__init__(parameters, {"lr": 0.1})
        self.anew = anew

    def step(self, _=None):
        for p in self.param_groups[0]["params"]:
            after = p.data - self.param_groups[0]["lr"] * p.grad
            if self.anew:
                p.data = after
            else:
                p.data.copy_(after)


def test_an_optimizer_that_gives_parameters_other_memory_is_tuned_as_one_that_does_not():
    histories = []
    for anew in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        policy = autolr.ExploreExploit(window=5, superbatch=3)
        optimizer = autolr.AutoLR(
            Stepping(model.parameters(), anew), model, cross_entropy, BATCHES_OF_LINES, 40, policy=policy
        )
        for step in range(40):
            optimizer.zero_grad()
            cross_entropy(model, BATCHES_OF_LINES[step % len(BATCHES_OF_LINES)]).backward()
            optimizer.step()
        histories.append([(record.losses, record.trigger, record.lr_after) for record in optimizer.history])
    assert histories[0] == histories[1]
    assert len(set(histories[0][0][0])) > 1


def test_memory_stays_where_it_is_and_strides_stay_what_they_are():
    p = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    address, stride = p.data_ptr(), p.stride()
    line = StepLine([p])
    p.add_(0.1)
    for eps in (-1.0, 0.5, 0.0, 0.5):
        line.to(eps)
        assert (p.data_ptr(), p.stride()) == (address, stride)
    line.back()
    assert line._copy[0].stride() == stride
