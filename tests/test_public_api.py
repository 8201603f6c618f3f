"""The front door is documented, and every example in the documentation runs."""

import ast
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch

import autolr

PUBLIC = [name for name in autolr.__all__ if name != "__version__"]
ROOT = Path(autolr.__file__).parent
OPTIONAL = {"cli", "report"}  # extras, with tests of their own
MODULES = sorted(
    ".".join(["autolr", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if path.relative_to(ROOT).with_suffix("").parts[0] not in OPTIONAL
)


def documented(thing):
    """Its own docstring: a dataclass writes itself one, and a subclass inherits one."""
    return ast.get_docstring(ast.parse(inspect.getsource(thing)).body[0]) if hasattr(thing, "__module__") else None


def test_the_front_door_names_what_it_has_and_has_what_it_names():
    assert len(set(autolr.__all__)) == len(autolr.__all__)
    assert set(autolr.__all__) <= set(dir(autolr))
    assert all(getattr(autolr, name) is not None for name in autolr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Paper'"):
        _ = autolr.Paper
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", autolr.__version__)


def methods_of(thing):
    """The public methods and properties that a class defines itself."""
    own = {name: value for name, value in vars(thing).items() if not name.startswith("_")}
    found = {name: getattr(value, "__func__", getattr(value, "fget", value)) for name, value in own.items()}
    return {name: value for name, value in found.items() if inspect.isfunction(value)}


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_at_the_front_door_says_what_it_is_what_it_takes_and_what_it_refuses(name):
    thing = getattr(autolr, name)
    told = documented(thing)
    assert told
    settings = [n for n in inspect.signature(thing).parameters if n not in {"args", "kwds", "kwargs"}]
    if inspect.isclass(thing):
        assert all(inspect.getdoc(method) for method in methods_of(thing).values())
        # A record's fields have their comments where they stand; a policy's settings may be its base's.
        told += "".join(documented(base) or "" for base in thing.__mro__[1:] if base.__module__.startswith("autolr"))
        told += inspect.getsource(thing) if "Args:" not in told else ""
    assert [n for n in settings if not re.search(rf"^ *{n}: \S|``{n}``", told, re.MULTILINE)] == []
    if name in {"AutoLR", "find_peak", "PeekableLoader", "PeakSearch", "ExploreExploit", "Monitor"}:
        assert "Args:" in told
        assert "Raises:" in told


def imports_a_framework(module):
    return module.startswith("autolr.integrations.") and module != "autolr.integrations.checkpoint"


@pytest.mark.parametrize(
    "module", [pytest.param(m, marks=[pytest.mark.frameworks] if imports_a_framework(m) else []) for m in MODULES]
)
def test_every_example_in_the_documentation_runs(module):
    torch.manual_seed(0)
    failed, _ = doctest.testmod(importlib.import_module(module))  # prints what differs
    assert failed == 0


def test_there_are_examples_to_run():
    # Examples that were never collected would never fail.
    finder = doctest.DocTestFinder()
    plain = [m for m in MODULES if not imports_a_framework(m)]
    found = {m: [t.name for t in finder.find(importlib.import_module(m)) if t.examples] for m in plain}
    assert sum(map(len, found.values())) >= 12
    assert "autolr.optimizer.AutoLR" in found["autolr.optimizer"]
