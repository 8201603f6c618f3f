"""Imports point one way: integrations, workloads, report, cli -> tuner -> concepts; and the core needs torch alone."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import autolr

ROOT = Path(autolr.__file__).parent

# What is built around the optimizer; every other file is the core. A new file is the core until it is named here.
AROUND = {
    "bench", "cli", "cli_bench", "cli_choices", "integrations", "measures", "optimizers", "peers", "provenance",
    "randomness", "report", "runs", "schedules", "stepper", "training", "workloads",
}  # fmt: skip
FRONT_DOOR, TUNER = "autolr", "autolr.optimizer"
# Formulas and decisions: numbers in, numbers out, so that they can be tested without a model.
PURE = {"quadratic", "confidence", "saturation", "policies", "cost", "budget", "trace"}


def module_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_of(path): path for path in ROOT.rglob("*.py")}
CORE = {name for name in SOURCES if name == FRONT_DOOR or name.split(".")[1] not in AROUND}
CONCEPTS = CORE - {FRONT_DOOR, TUNER}


def imports_of(source, module, is_package=False):
    """Every module that ``source`` imports, anywhere in it: ``from package import module`` names the module."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in SOURCES else base)
    return found


IMPORTS = {name: imports_of(path.read_text(), name, path.name == "__init__.py") for name, path in SOURCES.items()}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import autolr.optimizer", {"autolr.optimizer"}),
        ("from autolr import tuner", {"autolr.optimizer"}),
        ("from autolr import AutoLR", {"autolr"}),
        ("from autolr.optimizer import AutoLR", {"autolr.optimizer"}),
        ("from ..tuner import AutoLR", {"autolr.optimizer"}),
        ("from .. import tuner", {"autolr.optimizer"}),
        ("def f():\n    from autolr import tuner", {"autolr.optimizer"}),
        ("if TYPE_CHECKING:\n    import autolr.optimizer as t", {"autolr.optimizer"}),
    ],
)
def test_an_import_is_seen_however_it_is_written(source, found):
    assert imports_of(source, "autolr.policies.explore_exploit") == found


def test_the_files_are_all_there_is_and_the_core_is_not_empty():
    # A check that looks at nothing would pass.
    assert {FRONT_DOOR, TUNER, "autolr.numerics.quadratic", "autolr.policies.explore_exploit", "autolr.measure.snapshot"} <= CORE
    assert {"autolr_lab.workloads.idx", "autolr_lab.training.runs"} <= SOURCES.keys() - CORE


@pytest.mark.parametrize("module", sorted(CONCEPTS))
def test_a_concept_imports_neither_the_tuner_nor_the_front_door(module):
    assert not IMPORTS[module] & {TUNER, FRONT_DOOR}


@pytest.mark.parametrize("module", sorted(CORE))
def test_the_core_imports_nothing_that_is_built_around_it(module):
    own = {name.split(".")[1] for name in IMPORTS[module] if name.startswith("autolr.")}
    assert not own & AROUND


@pytest.mark.parametrize("module", sorted(name for name in CORE if name.split(".")[-1] in PURE or ".policies" in name))
def test_formulas_and_decisions_do_without_torch(module):
    assert not {name for name in IMPORTS[module] if name.split(".")[0] == "torch"}


def test_concepts_do_not_import_each_other_in_a_circle():
    def reached(module, path=()):
        assert module not in path, " -> ".join([*path, module])
        for other in sorted(IMPORTS[module] & CONCEPTS):
            reached(other, (*path, module))

    for module in CONCEPTS:
        reached(module)


def test_workloads_and_runs_do_not_import_what_draws_or_commands():
    for module in SOURCES:
        if module.startswith(("autolr_lab.workloads", "autolr_lab.training.runs", "autolr_lab.training.training", "autolr_lab.baselines.schedules")):
            assert not {name.split(".")[1] for name in IMPORTS[module] if "." in name} & {"cli", "report", "bench"}


def test_importing_autolr_brings_in_torch_numpy_and_the_standard_library_only():
    # What torch and numpy import on their own account is theirs; all that comes on top is ours.
    script = """
import sys, json
import numpy, numpy.random, torch, torch.utils.data, torch.distributed
before = set(sys.modules)
import autolr
print(json.dumps([sorted(set(sys.modules) - before), sorted(sys.modules)]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:autolr", "-c", script],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    ours, everything = json.loads(done.stdout)
    assert "autolr.optimizer" in ours
    allowed = {"autolr", "torch", "numpy", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in ours} <= allowed
    extras = {
        "matplotlib",
        "typer",
        "rich",
        "sklearn",
        "jinja2",
        "scipy",
        "pandas",
        "torchvision",
        "transformers",
        "tokenizers",
    }
    assert not {name.split(".")[0] for name in everything} & extras
    assert not {name.split(".")[1] for name in everything if name.startswith("autolr.")} & AROUND
