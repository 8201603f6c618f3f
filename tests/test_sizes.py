"""A reader takes in a file, a function, a class at once: none is longer than the rule without saying why."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE, CLASS, FUNCTION = 300, 200, 50  # lines; of a function those of its docstring do not count
FOLDERS = [folder for name in ("src", "lab/src") if (folder := ROOT / name).is_dir()]
REASON = re.compile(r"\blong\b[^.]*\b(because|since)\b", re.IGNORECASE)  # "It is long because ..."


def too_long(source):
    """Whatever is longer than the rule and whose docstring does not say why: (name, lines)."""
    module = ast.parse(source)
    found = [("the file", len(source.splitlines()), FILE, module)]
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            found.append((node.name, node.end_lineno - node.lineno + 1, CLASS, node))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            told = node.body[0] if ast.get_docstring(node) is not None else None
            told_lines = 0 if told is None else told.end_lineno - told.lineno + 1
            found.append((node.name, node.end_lineno - node.lineno + 1 - told_lines, FUNCTION, node))
    return [
        (name, lines) for name, lines, most, node in found
        if lines > most and not REASON.search(ast.get_docstring(node) or "")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = 1\n" * 300, []),
        ("x = 1\n" * 301, [("the file", 301)]),
        ('"""It is long because it is a table."""\n' + "x = 1\n" * 301, []),
        ('"""It is long."""\n' + "x = 1\n" * 301, [("the file", 302)]),
        ("def f():\n" + "    x = 1\n" * 49, []),
        ("def f():\n" + "    x = 1\n" * 50, [("f", 51)]),
        ("def f():\n" + '    """A.\n' + "    B.\n" * 20 + '    """\n' + "    x = 1\n" * 49, []),
        ("class A:\n" + "    x = 1\n" * 200, [("A", 201)]),
    ],
)
def test_what_is_too_long_is_seen(source, found):
    assert too_long(source) == found


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_nothing_is_longer_than_the_rule_without_a_reason_in_its_docstring(folder):
    paths = sorted(folder.rglob("*.py"))
    assert len(paths) > 40
    long = {str(path.relative_to(ROOT)): too_long(path.read_text(encoding="utf8")) for path in paths}
    assert {path: found for path, found in long.items() if found} == {}
