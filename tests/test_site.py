"""The site that `make docs` has built: whole, without the network, and searchable from a folder."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.site


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Loads(HTMLParser):
    """What a page loads by itself; not what it links to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text(encoding="utf8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("rel") not in {"canonical", "prev", "next"} and (target := given.get(LOADING.get(tag, ""))):
            self.found.append(target)


def pages() -> list[Path]:
    return [page for page in sorted(SITE.rglob("*.html")) if page.name != "404.html"]


def entries() -> list[dict[str, str]]:
    text = (SITE / "search" / "search_index.js").read_text(encoding="utf8")
    return list(json.loads(text.removeprefix("var __index = "))["docs"])


def test_no_page_and_no_style_loads_anything_from_elsewhere():
    assert len(pages()) > 30
    foreign = {
        (page.name, target) for page in pages() for target in Loads(page).found if re.match(r"(https?:)?//", target)
    }
    styles = {
        path.name for path in SITE.rglob("*.css") if re.search(r"url\(['\"]?(https?:)?//", path.read_text("utf8"))
    }
    assert foreign == set()
    assert styles == set()


def test_what_a_page_loads_is_there():
    for page in pages():
        for target in Loads(page).found:
            path = re.split(r"[?#]", target)[0]
            assert target.startswith("data:") or (page.parent / path).exists(), (page.name, target)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("how-to/mixed-precision.html", "unscale"),
        ("api/autolr.html", "find_peak"),
        ("api/integrations.html", "AutoLRCallback"),
        ("troubleshooting.html", "finite loss"),
        ("notebooks/explore_exploit.html", "parabola"),
        ("lab-notebook.html", "superbatch"),
    ],
)
def test_the_search_index_holds_the_words_of_the_pages(place: str, words: str):
    texts = [re.sub("<[^>]+>", "", e["title"] + " " + e["text"]) for e in entries() if e["location"].startswith(place)]
    assert any(words in text for text in texts)


def test_the_notebooks_are_there_with_what_their_cells_answered():
    for name, said in (("find_peak", "short runs"), ("autolr_run", "rolled back"), ("explore_exploit", "explore")):
        page = (SITE / "notebooks" / f"{name}.html").read_text(encoding="utf8")
        assert "data:image/png;base64" in page
        assert said in page
        assert "Traceback" not in page


def test_a_public_name_without_a_page_is_told():
    hooks = script("site_hooks")
    assert len(list(hooks.public_names())) > 20
    assert hooks.undocumented(SITE / "objects.inv") == []
    assert "autolr.nowhere" not in set(hooks.public_names())


def test_a_public_name_that_is_added_fails_the_build(tmp_path: Path):
    hooks = script("site_hooks")
    shutil.copytree(ROOT / "src" / "autolr", tmp_path / "autolr", ignore=shutil.ignore_patterns("__pycache__"))
    front = tmp_path / "autolr" / "schedules.py"
    front.write_text(front.read_text().replace('__all__ = ["', '__all__ = ["Unheard", "', 1))
    assert hooks.undocumented(SITE / "objects.inv", tmp_path) == ["autolr.schedules.Unheard"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("query", ["saturated", "GradScaler", "accumulation"])
def test_a_search_in_a_site_opened_from_a_folder_finds_something_without_the_network(query: str, tmp_path: Path):
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--allow-file-access-from-files", f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=8000", "--dump-dom", f"{(SITE / 'index.html').as_uri()}?q={query}",
        ],
        capture_output=True, text=True, timeout=120, check=True, env=os.environ | {"HOME": str(tmp_path)},
    )  # fmt: skip
    assert "md-search-result__item" in done.stdout
    assert query.lower() in done.stdout.partition("md-search-result__list")[2].lower()


def test_the_release_check_tells_each_fault(tmp_path: Path):
    check = script("check_release")
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md", "src/autolr/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    told = " ".join(check.faults(tmp_path))
    assert "OWNER" in told
    assert "CITATION" not in told
    version = re.findall(r'__version__ = "(.+)"', (tmp_path / "src/autolr/__init__.py").read_text())[0]
    project = tmp_path / "pyproject.toml"
    project.write_text(project.read_text().replace("# OWNER stands", "# it stands").replace("OWNER", "somebody"))
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## [Unreleased]\n\n## [{version}] - 2030-01-01\n\n- All.\n")
    assert list(check.faults(tmp_path)) == ["The working tree has changes: commit them."]
    subprocess.run(["git", "tag", f"v{version}"], cwd=tmp_path, check=True)
    (tmp_path / "CITATION.cff").write_text("version: 0.0.0\n")
    told = " ".join(check.faults(tmp_path))
    assert "a tag v" in told
    assert "CITATION.cff must have version" in told
