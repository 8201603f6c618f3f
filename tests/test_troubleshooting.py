"""Each message of the library is on the page Troubleshooting, and each message of the page happens."""

from __future__ import annotations

import ast
import inspect
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest

from message_cases import CASES
from messages import INNER, PAGE, SOURCES, messages, patterns, told

pytestmark = [pytest.mark.long, pytest.mark.skipif(not PAGE.exists(), reason="the documents are a checkout's")]
ELSEWHERE = "Frameworks"  # its messages happen in integrations/test_messages.py
HANDED_ON = {  # what is warned of and made elsewhere; a new place needs a maker in `messages.MAKERS`
    ("optimizer.py", "text"), ("peak_search.py", "text"), ("run_length.py", "text"), ("run_end.py", "text"),
    ("runtime/controller.py", "concern"), ("runtime/recorder.py", "text"), ("runtime/recorder.py", "self._log.trouble"),
    ("runtime/recorder.py", "self._log.shared"), ("runtime/run_end.py", "text"),
}  # fmt: skip


def on_the_page() -> list[str]:
    return [pattern for section in patterns().values() for pattern in section]


def say(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """All that the case ``name`` raises, warns of and prints to stderr."""
    run, heard = CASES[name], []
    folder.mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        wanted = {"tmp_path": folder, "monkeypatch": monkeypatch}
        try:
            run(**{each: wanted[each] for each in inspect.signature(run).parameters if each in wanted})
        except (Exception, SystemExit) as error:
            heard.append(str(error))
    printed = capsys.readouterr().err.replace("Error: ", "").splitlines()
    return [*heard, *(str(warning.message) for warning in warned), *printed]


def test_each_message_of_the_page_happens_and_whatever_happens_is_on_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """One test for all: whether each pattern is met is known when all cases have been run, in one process."""
    monkeypatch.setattr(logging.getLogger("autolr"), "disabled", True)
    said = {name: say(name, tmp_path / str(number), capsys) for number, name in enumerate(CASES)}
    page = on_the_page()
    assert {
        name: heard for name, heard in said.items()
        if not any(told(pattern, text) for pattern in page for text in heard)
    } == {}  # fmt: skip
    everything = [text for heard in said.values() for text in heard]
    here = [pattern for section, those in patterns().items() if section != ELSEWHERE for pattern in those]
    assert [pattern for pattern in here if not any(told(pattern, text) for text in everything)] == []


def missing(sources: Path = SOURCES) -> list[tuple[str, str]]:
    page = on_the_page()
    return [
        (where, text) for where, text in messages(sources)
        if not text.startswith(tuple(INNER)) and not any(told(pattern, text) for pattern in page)
    ]  # fmt: skip


def test_every_message_of_the_source_is_on_the_page():
    assert len(list(messages())) > 100
    assert missing() == []


@pytest.mark.parametrize(
    "line",
    [
        'raise ValueError(f"The moon is {phase}: wait for another.")',
        'warnings.warn("The moon is full: wait for another.", stacklevel=2)',
        'self._recorder.warn("moon", f"The moon is {phase}.")',
        'raise ValueError("The moon " "is full.")',
        "raise ValueError(text)",
    ],
)
def test_a_message_that_is_new_is_missed(line: str, tmp_path: Path):
    (tmp_path / "moon.py").write_text(f"def shine():\n    {line}\n")
    assert len(missing(tmp_path)) == 1


def test_what_is_handed_on_is_made_where_it_is_looked_for():
    found = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {"warn", "warning"}:
                found |= {(str(path.relative_to(SOURCES)), word) for word in map(variable, node.args) if word}
    assert found <= HANDED_ON


def variable(node: ast.expr) -> str | None:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) and not _is_key(node) else None


def _is_key(node: Any) -> bool:
    return ast.unparse(node) in {"key", "decision.trigger.value"}


def test_every_entry_of_the_page_says_what_to_make_of_it():
    lines = PAGE.read_text(encoding="utf8").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("`") and line.endswith("`") and line.count("`") == 2:
            assert lines[number + 1].startswith(("`", ":   ")), line
