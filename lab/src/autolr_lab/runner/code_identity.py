"""Which code decides how a run goes: a hash of its source files, so that a run made by other code is not taken for it.

Counted are the module that trains, the ones that define the run's workload and its schedule, and everything that these
import from the library and the lab; of each the statements, without comments, docstrings and layout. What a run chooses
among is not imported for it: the other workloads, the other baselines, and, without one of AutoLR's policies, AutoLR.
Nor is what shows a run when it is over: pictures and the report's page.
Not counted is what is installed (torch, numpy): a run's provenance names their versions.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from autolr_lab.training.runs import Settings

TRAINS = "autolr_lab.training.training"
# Modules that list everything a run chooses among: nothing is counted for being in a list.
LISTS = ("autolr_lab.workloads", "autolr_lab.baselines", "autolr_lab.training.policies", "autolr", "autolr.policies")
SEARCHES = ("find-peak", "find-peak-paid")  # schedules that carry out a search; with another one AutoLR only could
TUNES = ("autolr.optimizer", "autolr.policies.", "autolr.runtime.")  # beginnings of what only runs by AutoLR have
SHOWS = ("autolr.report",)  # likewise: what draws and tells of a run
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_of(settings: Settings) -> str:
    """Twelve hexadecimal digits for the code that decides this run."""
    from autolr_lab.baselines import BASELINES
    from autolr_lab.training.policies import POLICIES as TUNED
    from autolr_lab.workloads import WORKLOADS

    chosen = [TRAINS, *_defining("autolr_lab.workloads", WORKLOADS[settings.workload])]
    if settings.schedule in BASELINES:
        chosen += _defining("autolr_lab.baselines", BASELINES[settings.schedule])
    left_out: tuple[str, ...] = (*TUNES, *SHOWS)
    if settings.schedule in TUNED:
        policies = {name: type(make()).__module__ for name, make in TUNED.items()}
        chosen += ["autolr.optimizer", policies[settings.schedule]]
        left_out = (*sorted(set(policies.values()) - {policies[settings.schedule]}), *SHOWS)
        left_out += () if settings.schedule in SEARCHES else ("autolr.peak",)
    return code_of_modules(tuple(chosen), left_out)


@functools.cache
def code_of_modules(modules: tuple[str, ...], left_out: tuple[str, ...] = ()) -> str:
    """The hash of these modules and of what they import."""
    parts = [f"{name} {_statements(path)}" for name, path in sorted(reached(modules, left_out).items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def reached(modules: tuple[str, ...], left_out: tuple[str, ...] = ()) -> dict[str, Path]:
    """These modules and what they import, however far, with their files.

    Args:
        modules: to begin with.
        left_out: beginnings of the names of those that are not followed, beside `LISTS`.
    """
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = source_of(name)
        followed = name in modules or (name not in LISTS and not name.startswith(left_out))
        if path is not None and followed and name not in found:
            found[name] = path
            waiting += imported_by(name, path)
    return found


def imported_by(name: str, path: Path) -> Iterator[str]:
    """Names of modules that a file imports anywhere in it; ``from a import b`` may mean the module ``a.b``."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def source_of(name: str) -> Path | None:
    """The file of a module of the library or the lab; None for another one, or where there is no such module."""
    top, *rest = name.split(".")
    root = _roots().get(top)
    if root is None:
        return None
    file = root.joinpath(*rest)
    there = (file.with_suffix(".py") if rest else file / "__init__.py", file / "__init__.py")
    return next((path for path in there if path.is_file()), None)


@functools.cache
def _roots() -> dict[str, Path]:
    """Folders of the two packages; found without importing them."""
    specs = {name: importlib.util.find_spec(name) for name in ("autolr", "autolr_lab")}
    return {name: Path(spec.origin).parent for name, spec in specs.items() if spec is not None and spec.origin}


@functools.cache
def _statements(path: Path) -> str:
    return statements(path.read_text(encoding="utf8"))


def statements(source: str) -> str:
    """What a file's statements are, without comments, docstrings and layout; the same under every Python."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return _told(tree)


def _told(node: object) -> str:
    """A syntax tree as text. Fields that are empty are left out: newer Pythons have more of them."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({', '.join(f'{name}={_told(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_told, node))}]"
    return repr(node)


def _defining(package: str, chosen: object) -> list[str]:
    """The module of a package whose file makes this object; none for one that was made elsewhere, as by a test."""
    folder: ModuleType = importlib.import_module(package)
    for info in pkgutil.iter_modules(folder.__path__, f"{package}."):
        names = [name for name, value in vars(importlib.import_module(info.name)).items() if value is chosen]
        path = source_of(info.name)
        if path is not None and names and set(names) & set(_assigned(path)):
            return [info.name]
    return []


def _assigned(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf8")).body:
        if isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
