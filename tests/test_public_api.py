"""The front door is documented, and every example in the core's documentation runs."""

import ast
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch

import autolr

ROOT = Path(autolr.__file__).parent
AROUND = {"bench", "cli", "integrations", "report"}  # these have tests of their own
MODULES = {
    "autolr." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
    if path.relative_to(ROOT).parts[0].removesuffix(".py") not in {*AROUND, "__init__"}
}


def public_definitions(tree):
    """Every public function and class of a module, and every public method of a public class, with its name."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name, node
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                setter = any(
                    isinstance(d, ast.Attribute) for d in getattr(inner, "decorator_list", ())
                )  # as its getter
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_") and not setter:
                    yield f"{node.name}.{inner.name}", inner


def test_the_front_door_names_what_it_has_and_has_what_it_names():
    assert sorted(set(autolr.__all__)) == sorted(autolr.__all__)
    own = {
        name
        for name, value in vars(autolr).items()
        if not name.startswith("_") and not inspect.ismodule(value) and value is not autolr
    }
    assert own | {"__version__"} == set(autolr.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", autolr.__version__)


@pytest.mark.parametrize("name", [name for name in autolr.__all__ if name != "__version__"])
def test_everything_at_the_front_door_is_documented(name):
    thing = getattr(autolr, name)
    tree = ast.parse(inspect.getsource(thing))  # not __doc__: a dataclass writes itself one
    assert ast.get_docstring(tree.body[0])


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_class_and_method_says_what_it_is(module):
    tree = ast.parse(MODULES[module].read_text())
    assert ast.get_docstring(tree)
    undocumented = [name for name, node in public_definitions(tree) if not ast.get_docstring(node)]
    assert undocumented == []


@pytest.mark.parametrize("module", ["autolr", *MODULES])
def test_every_example_in_the_documentation_runs(module):
    torch.manual_seed(0)
    failed, _ = doctest.testmod(importlib.import_module(module))  # prints what differs
    assert failed == 0


def test_the_formulas_and_the_optimizer_have_an_example():
    # An example that was never collected would never fail.
    for module, name in [
        ("autolr.numerics.quadratic", "fit_quadratic"),
        ("autolr.numerics.quadratic", "epsilon_threshold"),
        ("autolr.numerics.saturation", "loss_drop"),
        ("autolr.numerics.saturation", "check_saturation"),
        ("autolr.numerics.cost", "affordable_superbatch"),
        ("autolr.optimizer", "AutoLR"),
    ]:
        found = doctest.DocTestFinder().find(getattr(importlib.import_module(module), name))
        assert any(test.examples for test in found), name


@pytest.mark.parametrize("name", ["quadratic", "saturation", "cost", "policies.paper"])
def test_a_concept_says_which_part_of_the_paper_it_is(name):
    documented = importlib.import_module(f"autolr.{name}").__doc__
    assert re.search(r"[Pp]aper", documented)
