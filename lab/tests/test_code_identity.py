"""The hash of the code that decides a run: what changes it, and what does not."""

import dataclasses
import textwrap

import pytest

from autolr import AutoLR
from autolr_lab.runner import code_identity
from autolr_lab.runner.code_identity import TRAINS, TUNES, code_of, code_of_modules, reached, statements
from autolr_lab.training.runs import Settings

CODE = '''
"""What it is about."""
import math  # a comment


def area(radius):
    """Of a circle."""
    return math.pi * radius**2  # squared
'''


def settings(workload="digits", schedule="cosine"):
    return Settings(workload, "momentum", schedule, 0.1, 1, 32, 0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# squared", "# another comment"),
        ('"""Of a circle."""', '"""Of a disc."""'),
        ('    """Of a circle."""\n', ""),
        ("math.pi * radius**2", "(math.pi  *  radius ** 2)"),
        ("\n\n\n", "\n"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(old, new):
    assert old in CODE
    assert statements(CODE.replace(old, new)) == statements(CODE)


@pytest.mark.parametrize(
    ("old", "new"), [("**2", "**3"), ("pi", "tau"), ("radius", "r"), ("import math", "import math as m")]
)
def test_every_statement_counts(old, new):
    assert statements(CODE.replace(old, new, 1)) != statements(CODE)


def test_a_text_that_is_no_docstring_counts():
    assert statements('name = "a"') != statements('name = "b"')


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Two packages of a few files; what is written anew is read anew."""
    files = {
        "autolr/__init__.py": "from autolr.core import step",
        "autolr/core.py": "def step(): ...",
        "autolr/optimizer.py": "import autolr.core",
        "autolr_lab/__init__.py": "",
        "autolr_lab/train.py": "from . import parts\nfrom autolr_lab.parts import part\nfrom autolr import core",
        "autolr_lab/parts.py": "def part():\n    from autolr_lab import late\n",
        "autolr_lab/late.py": "late = 1",
        "autolr_lab/unrelated.py": "x = 1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    roots = {name: tmp_path / name for name in ("autolr", "autolr_lab")}
    monkeypatch.setattr(code_identity, "_roots", lambda: roots)

    def code():
        code_identity._statements.cache_clear()
        code_of_modules.cache_clear()
        return code_of_modules(("autolr_lab.train",))

    yield tmp_path, code
    code_identity._statements.cache_clear()
    code_of_modules.cache_clear()


def test_the_hash_is_of_all_that_is_imported_however_far_and_late(tree):
    folder, code = tree
    lab = {"autolr_lab", "autolr_lab.train", "autolr_lab.parts", "autolr_lab.late"}
    assert set(reached(("autolr_lab.train",))) == {*lab, "autolr.core"}
    before = code()
    for name in ("autolr_lab/late.py", "autolr_lab/parts.py", "autolr/core.py"):
        text = (folder / name).read_text()
        (folder / name).write_text(f"{text}\n# a comment\n")
        assert code() == before
        (folder / name).write_text(f"{text}\ny = 2\n")
        assert code() != before
        (folder / name).write_text(text)
    for name in ("autolr_lab/unrelated.py", "autolr/optimizer.py", "autolr/__init__.py"):
        (folder / name).write_text("z = 3")
    assert code() == before


def test_a_run_depends_on_its_own_workload_and_schedule_and_on_no_other():
    codes = {
        (w, s): code_of(settings(w, s))
        for w in ("digits", "shakespeare")
        for s in ("cosine", "prodigy", "explore-exploit")
    }
    assert len(set(codes.values())) == 6
    assert code_of(settings("digits", "knee")) == codes["digits", "cosine"]  # one file has all schedules
    assert code_of(dataclasses.replace(settings(), seed=5, lr=3.0)) == codes["digits", "cosine"]


def test_only_a_run_with_a_policy_depends_on_autolr_and_on_its_own_policy_alone():
    plain = reached((TRAINS, "autolr_lab.workloads.digits"), TUNES)
    assert "autolr_lab.baselines.distance" not in plain
    assert "autolr_lab.workloads.squad" not in plain
    assert not [name for name in plain if name.startswith(("autolr.policies", "autolr.runtime", "autolr.optimizer"))]
    assert code_of(settings(schedule="monitor")) != code_of(settings(schedule="explore-exploit"))
    assert code_of(settings(schedule="adaptive")) == code_of(settings(schedule="explore-exploit"))


def test_what_draws_a_run_when_it_is_over_does_not_decide_how_it_goes(monkeypatch):
    counted = []
    monkeypatch.setattr(code_identity, "code_of_modules", lambda *asked: counted.append(reached(*asked)) or "")
    for schedule in ("cosine", "explore-exploit", "find-peak"):
        code_of(settings(schedule=schedule))
        assert not [name for name in counted[-1] if name.startswith("autolr.report")]
    assert "autolr.measure.probe" in counted[1]
    parts = {kind.__module__ for kind in AutoLR.__mro__ if kind.__module__.startswith("autolr")}
    assert len(parts) > 2
    assert parts <= counted[1].keys(), "what the optimizer is made of decides"
    assert [name for name in counted[2] if name.startswith("autolr.peak")]


def test_every_file_of_both_packages_has_statements_that_can_be_read():
    for name in ("autolr_lab.runner.code_identity", "autolr.optimizer", "autolr_lab.workloads"):
        assert statements(textwrap.dedent(code_identity.source_of(name).read_text()))
    assert code_identity.source_of("torch.nn") is None
    assert code_identity.source_of("autolr.no_such_file") is None
