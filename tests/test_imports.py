"""Imports point one way: command line and report, then the optimizer, then what it is made of; decisions need no torch.

Rooms: ``numerics`` (floats), ``policies`` (decisions on floats), ``measure`` (tensors), ``runtime`` (one controller).
"""

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import autolr

ROOT = Path(autolr.__file__).parent
FRONT_DOOR, OPTIMIZER = "autolr", "autolr.optimizer"
# What each room may import from the library. `policies` stands for its protocol and its words alone.
ROOMS = {
    "numerics": {"numerics"},
    "policies": {"numerics", "policies"},
    "measure": {"measure", "numerics"},
    "runtime": {"runtime", "measure", "numerics"},
    "report": {"report", "runtime", "numerics"},
}
PROTOCOL = {"autolr.policies.base", "autolr.policies.wording"}
LEAVES = {
    f"autolr.runtime.{name}" for name in ("distributed", "param_group_lrs", "quiet")
}  # import nothing of the library


def module_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_of(path): path for path in ROOT.rglob("*.py")}


parsed = functools.cache(ast.parse)


def imports_of(source, module, is_package=False, only_at_import=False):
    """Every module that ``source`` imports: ``from package import module`` names the module.

    ``only_at_import`` leaves out what functions import, and what is for a type checker alone.
    """
    tree = parsed(source)
    nodes = list(_at_import(tree.body)) if only_at_import else list(ast.walk(tree))
    found = set()
    for node in nodes:
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


def _at_import(body):
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _at_import(ast.iter_child_nodes(node))


IMPORTS = {name: imports_of(path.read_text(), name, path.name == "__init__.py") for name, path in SOURCES.items()}
AT_IMPORT = {
    name: imports_of(path.read_text(), name, path.name == "__init__.py", only_at_import=True)
    for name, path in SOURCES.items()
}


def room(module):
    return module.split(".")[1] if "." in module else ""


def library(modules):
    return {name for name in modules if name.split(".")[0] == "autolr"}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import autolr.optimizer", {OPTIMIZER}),
        ("from autolr import optimizer", {OPTIMIZER}),
        ("from autolr import AutoLR", {"autolr"}),
        ("from autolr.optimizer import AutoLR", {OPTIMIZER}),
        ("from ..optimizer import AutoLR", {OPTIMIZER}),
        ("from .. import optimizer", {OPTIMIZER}),
        ("def f():\n    from autolr import optimizer", {OPTIMIZER}),
        ("if TYPE_CHECKING:\n    import autolr.optimizer as t", {OPTIMIZER}),
    ],
)
def test_an_import_is_seen_however_it_is_written(source, found):
    assert imports_of(source, "autolr.policies.explore_exploit") == found


def test_what_is_imported_late_is_told_from_what_is_imported_at_once():
    source = "def f():\n    import a\nif TYPE_CHECKING:\n    import b\ntry:\n    import c\nfinally:\n    pass\n"
    assert imports_of(source, "autolr.x", only_at_import=True) == {"c"}


def test_the_rooms_are_all_there():
    # A check that looks at nothing would pass.
    assert {room(name) for name in SOURCES} >= ROOMS.keys()
    assert all(sum(room(name) == one for name in SOURCES) >= 5 for one in ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_only_what_lies_below_it(name):
    for module in (module for module in SOURCES if room(module) == name):
        for other in library(IMPORTS[module]):
            allowed = room(other) in ROOMS[name] or (name in {"runtime", "report"} and other in PROTOCOL)
            assert allowed or (name == "measure" and other in LEAVES), f"{module} imports {other}"


def test_what_knows_of_ranks_and_groups_knows_nothing_else_of_the_library():
    assert all(not library(IMPORTS[leaf]) for leaf in LEAVES)


SHOWN = {"autolr.peak", "autolr.run_view"}  # Peak.plot(), AutoLR.plot() and the like


def test_only_the_command_line_and_what_a_peak_or_a_run_shows_know_the_report_and_only_when_it_is_asked_for():
    outside = {name for name in SOURCES if room(name) not in {"report", "cli"}} - SHOWN
    assert not {name for name in outside if any(room(other) in {"report", "cli"} for other in IMPORTS[name])}
    inside = {name for name in SOURCES if room(name) == "cli"} | SHOWN
    assert any(room(other) == "report" for name in inside for other in IMPORTS[name])
    assert not {other for name in inside for other in AT_IMPORT[name] if other == "torch"}
    # The commands' own files are imported when a command is called.
    first = {"autolr.cli", "autolr.cli.app"} | SHOWN
    assert not {other for name in first for other in AT_IMPORT[name] if room(other) in {"report", "cli"} - {room(name)}}


def test_nothing_knows_the_lab():
    assert not {name for name in SOURCES if any(other.split(".")[0] == "autolr_lab" for other in IMPORTS[name])}


def test_modules_do_not_import_each_other_in_a_circle():
    done = set()

    def follow(module, path):
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for other in sorted(AT_IMPORT[module] & SOURCES.keys()):
                follow(other, [*path, module])
            done.add(module)

    for module in SOURCES:
        follow(module, [])


def in_a_fresh_process(script):
    command = [sys.executable, "-W", "error::DeprecationWarning:autolr", "-c", script]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_formulas_decisions_and_the_log_do_without_torch_also_by_way_of_others():
    pure = [name for name in SOURCES if room(name) in {"numerics", "policies"}] + ["autolr.runtime.decision_log"]
    loaded = in_a_fresh_process(f"import {', '.join(pure)}\nimport sys, json\nprint(json.dumps(list(sys.modules)))")
    assert set(pure) <= set(loaded)
    assert "torch" not in loaded


def test_everything_at_the_front_door_brings_in_torch_numpy_and_the_standard_library_only():
    # What torch and numpy import on their own account is theirs; all that comes on top is ours.
    ours, everything = in_a_fresh_process("""
import sys, json
import numpy, numpy.random, torch, torch.utils.data, torch.distributed
before = set(sys.modules)
import autolr
for name in autolr.__all__:
    getattr(autolr, name)
print(json.dumps([sorted(set(sys.modules) - before), sorted(sys.modules)]))
""")
    assert OPTIMIZER in ours
    assert {name.split(".")[0] for name in ours} <= {"autolr", "torch", "numpy", *sys.stdlib_module_names}
    extras = {"matplotlib", "typer", "rich", "jinja2", "sklearn", "scipy", "pandas", "torchvision", "transformers"}
    assert not {name.split(".")[0] for name in everything} & extras
    assert not {name for name in everything if room(name) in {"report", "cli"} and name.startswith("autolr.")}


def test_importing_autolr_alone_does_not_import_torch():
    assert "torch" not in in_a_fresh_process("import autolr, sys, json\nprint(json.dumps(list(sys.modules)))")
