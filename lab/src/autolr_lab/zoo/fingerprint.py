"""A short hash of the code that decides how a task is trained, so that a row tells whether it is out of date.

It covers what the task's definition reaches by name through the zoo's files, and what every run goes through.
Comments, docstrings and layout do not count, nor do other tasks: mending one leaves the rows of the others valid.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# The files that decide a run. What only asks for runs, keeps them or reads them is not among them.
FILES = (
    *("attention", "deep", "generative", "images", "recurrent", "relational", "tabular"),
    *("blocks", "data", "optimizers", "registry", "task", "text", "training"),
)
# What every run goes through: the loop, the optimizers, the order of the minibatches.
ALWAYS = ("train", "start", "shape", "judged", "held_out_loss", "OPTIMIZERS", "Minibatches")


def without_docstrings(tree: ast.Module) -> ast.Module:
    """The same module without docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def trees() -> Iterator[ast.Module]:
    """The files that decide a run, parsed."""
    return (without_docstrings(ast.parse(Path(__file__).with_name(f"{name}.py").read_text())) for name in FILES)


@cache
def definitions() -> dict[str, ast.AST]:
    """What these files define, by name; a task is found by its own name. No two of them define the same name."""
    found = dict(part for tree in trees() for node in tree.body for part in named(node))
    for name in ("TASKS", "BY_NAME", "PAIRS", "LEARN"):  # these would reach every task
        found.pop(name)
    return found


def named(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    """What one statement at the top of a file defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name, node
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Name):
            yield target.id, node
        for call in (part for part in ast.walk(node) if isinstance(part, ast.Call)):
            for keyword in call.keywords:
                if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
                    yield str(keyword.value.value), call


def names_in(node: ast.AST) -> Iterator[str]:
    """All names that a piece of code uses."""
    return (part.id for part in ast.walk(node) if isinstance(part, ast.Name))


@cache
def fingerprint(task: str) -> str:
    """Twelve hexadecimal digits for the code that trains the task of this name."""
    known, reached, waiting = definitions(), set[str](), [task, *ALWAYS]
    while waiting:
        name = waiting.pop()
        if name in known and name not in reached:
            reached.add(name)
            waiting += names_in(known[name])
    text = "\n".join(f"{name}: {ast.unparse(known[name])}" for name in sorted(reached))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
