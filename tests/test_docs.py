"""Everything shown is executed or looked up: blocks of Python, commands, links, records, constants."""

import importlib
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
RECORD = re.compile(r"\d{4}-\d\d-\d\d_[a-z0-9-]+_[0-9a-f]{6,}\+?(?:_\d)?")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (ROOT / "Makefile").exists(), reason="the documents are a checkout's"),
]


def read(page: Path) -> str:
    return page.read_text(encoding="utf8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), flags=re.MULTILINE | re.DOTALL)


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command shown, in a block or in a line, with its page."""
    for page in PAGES:
        lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
        inline = [words for words in re.findall(r"`([^`\n]+)`", read(page)) if " " in words and "…" not in words]
        for line in [*lines, *inline]:
            if line.split()[:1] in (["autolr"], ["autolr-lab"], ["make"]) or line.startswith("python -m autolr_lab"):
                yield page.name, shlex.split(line, comments=True)


def test_the_frameworks_page_shows_the_examples_that_run():
    sys.path.append(str(ROOT / "scripts"))
    try:
        from write_frameworks_page import PAGE, written
    finally:
        sys.path.pop()
    assert written(read(PAGE)) == read(PAGE), "run: python scripts/write_frameworks_page.py"
    shown = set(re.findall(r"<!-- example: (\S+) -->", read(PAGE)))
    assert shown == {path.name for path in (ROOT / "examples").glob("loop_*.py")}
    assert len(blocks(PAGE, "python")) == len(shown)


GROUND = DOCS / "how-to" / "index.md"  # its block is what the other how-tos and the index take for granted
# What frameworks.md shows runs as files, where the frameworks are: tests/integrations/test_examples.py.
HERE = [page for page in PAGES if blocks(page, "python") and page.name != "frameworks.md"]


@pytest.mark.parametrize("page", HERE, ids=names)
def test_the_python_of_a_page_runs_block_after_block(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    shared = {"__name__": "page"}
    taken = page != GROUND and (page == DOCS / "index.md" or page.parent == GROUND.parent)
    all_blocks = [*(blocks(GROUND, "python") if taken else []), *blocks(page, "python")]
    for number, block in enumerate(all_blocks, start=1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), shared)
    pyplot.close("all")
    if page in {README, DOCS / "quickstart.md"}:
        assert "peak" in capsys.readouterr().out


def test_the_readme_begins_with_a_script_that_needs_torch_alone():
    imported = {
        line.split()[1].split(".")[0]
        for line in blocks(README, "python")[0].splitlines()
        if line.startswith(("import ", "from "))
    }
    assert imported == {"torch", "autolr"}


def test_the_readme_says_which_door_to_take_and_admits_its_limits_in_ten_lines():
    before_script, _, after = read(README).partition("```python")
    for name in ("find_peak", "AutoLR(...)", "ExploreExploit", "Monitor", "pip install torch-autolr"):
        assert name in before_script
    limits = after.partition("**Limits**")[2].partition("\n## ")[0].strip()
    assert 1 <= len(limits.splitlines()) <= 10


def test_the_readme_s_picture_is_there():
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+\.png)\)", read(README))
    assert (ROOT / picture).stat().st_size > 10_000


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_link_of_a_page_leads_somewhere(page: Path):
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)  # indexing is no link
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in {slug(heading) for heading in headings(file)}, target


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.*)$", read(page), flags=re.MULTILINE)


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_page_can_be_reached_from_the_index_or_its_folder_s_and_the_readme_names_the_main_ones():
    for page in PAGES[2:]:
        if page != DOCS / "index.md":
            up = page.parent.parent if page.name == "index.md" else page.parent
            told = f"{page.parent.name}/index.md" if page.name == "index.md" else page.name
            assert told in read(up / "index.md"), f"{names(page)} is not named in {names(up / 'index.md')}"
    assert [page.name for page in DOCS.glob("*.md") if page.name not in read(README)] == []


def test_every_make_target_shown_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    shown = {words[1] for _, words in commands() if words[0] == "make"}
    assert {"demo", "test"} <= shown <= targets


@pytest.mark.parametrize(("package", "module"), [("autolr", "autolr.cli.app"), ("autolr-lab", "autolr_lab.cli.main")])
def test_every_command_shown_and_each_of_its_options_exists(package: str, module: str):
    pytest.importorskip("typer")
    try:
        app = importlib.import_module(module).app
    except ModuleNotFoundError:
        pytest.skip(f"{package} is not installed")
    from typer.main import get_command

    known = get_command(app)
    found = [(page, words[1:]) for page, words in commands() if words[0] == package and len(words) > 1]
    assert found
    for page, words in found:
        if words[0].startswith("-"):
            assert words[0] in options(known) | {"--help"}, (page, words)
            continue
        assert words[0] in getattr(known, "commands", {}), (page, words)
        command = known.commands[words[0]]
        assert {word for word in words if word.startswith("--")} <= options(command), (page, words)


def options(command: object) -> set[str]:
    params = getattr(command, "params", [])
    return {name for param in params for name in [*param.opts, *param.secondary_opts]}


def test_every_module_shown_exists():
    pytest.importorskip("autolr_lab")
    for page, words in commands():
        if words[0] == "python":
            assert importlib.util.find_spec(words[2]) is not None, (page, words)


def test_every_file_of_tests_named_exists():
    there = {path.name for tests in ("tests", "lab/tests") for path in (ROOT / tests).rglob("test_*.py")}
    named = {(page.name, name) for page in PAGES for name in re.findall(r"test_\w+\.py", read(page))}
    assert {name for _, name in named} <= there
    assert len(named) > 12


def test_every_record_named_is_kept():
    kept = json.loads((ROOT / "lab" / "results" / "manifest.json").read_text(encoding="utf8"))
    named = {(page.name, record) for page in PAGES for record in RECORD.findall(read(page))}
    assert len(named) > 20
    assert [place for place in sorted(named) if place[1] not in kept] == []


def test_the_method_s_constants_are_the_code_s():
    rows = re.findall(r"^\| `autolr\.([\w.]+)\.(\w+)` \| ([^|]+) \|", read(ROOT / "docs" / "method.md"), re.MULTILINE)
    assert len(rows) > 5
    for module, name, value in rows:
        assert getattr(importlib.import_module(f"autolr.{module}"), name) == float(value), f"{module}.{name}"


def test_the_shares_that_a_search_may_take_are_the_code_s():
    from autolr.numerics.plan import affordable_share

    assert [round(100 * affordable_share(steps), 6) for steps in (1_000, 10_000, 100_000)] == [10, 5, 1]
    told = " ".join(read(README).split())
    for part in ("10 % of a run of 1,000 steps", "5 % of 10,000", "1 % of 100,000", "100 steps, but at most a third"):
        assert part in told


def test_what_a_trial_of_a_lower_peak_costs_is_what_the_code_takes():
    from autolr.numerics import plan
    from autolr.policies.guard import LONGER, SOON

    def cost(steps):
        budget = plan.affordable_share(steps) * 3 * steps
        judges = plan.affordable_minibatches(budget)
        left = budget - judges * plan.affordable_candidates(budget, judges)
        length = plan.affordable_lengths(left, judges, steps)[-1]
        return LONGER * length / steps, (LONGER + 2) * length / steps  # of the run's own steps, and of the trial's

    assert [round(100 * cost(steps)[1], 1) for steps in (1_000, 10_000, 100_000)] == [15, 9.5, 2.7]
    assert "15, 9.5 and 2.7 % more" in read(README)
    for page in ("method", "scale"):
        told = " ".join(read(ROOT / "docs" / f"{page}.md").split())
        assert re.search(
            r"15 % (of a run of|at) 1,000 steps, 9\.5 % (of|at) 10,000(,| and) (and )?2\.7 % (of|at) 100,000", told
        )
    assert cost(480)[0] <= SOON < cost(470)[0]  # "below some 480 steps"


def test_every_part_of_the_method_that_the_code_refers_to_is_a_heading():
    there = set(headings(ROOT / "docs" / "method.md"))
    referred = {
        heading
        for path in (ROOT / "src").rglob("*.py")
        for heading in re.findall(r'docs/method\.md, "([^"]+)"', path.read_text(encoding="utf8"))
    }
    assert referred
    assert referred <= there


def test_no_old_name_is_left_in_the_documents():
    old = r"\bPaper\(|\.preset\(|\bHold\(|LendingLoader|\blooking\(\)|held_out|\bpeers\b|\bsounding\b|benchmarks/"
    left = [(page.name, found[0]) for page in PAGES if (found := re.search(old, read(page)))]
    assert left == []


def test_notebooks_are_kept_without_what_their_cells_answered():
    notebooks = sorted((DOCS / "notebooks").glob("*.ipynb"))
    assert len(notebooks) == 3
    for notebook in notebooks:
        cells = [cell for cell in json.loads(read(notebook))["cells"] if cell["cell_type"] == "code"]
        assert [cell for cell in cells if cell["outputs"] or cell["execution_count"]] == [], notebook.name
        assert notebook.name in read(DOCS / "notebooks" / "index.md")
