"""What a build of the site asks beside MkDocs' own checks: every public name is documented.

A warning fails ``mkdocs build --strict``.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocstrings import Inventory

SOURCES = Path(__file__).parents[1] / "src"
log = logging.getLogger("mkdocs.hooks.autolr")
NO_PAGE = {"autolr.__version__"}  # told of in a sentence


def public_names(sources: Path = SOURCES) -> Iterator[str]:
    """Each name of an ``__all__`` of a door: the package, its policies, schedules, report and integrations."""
    modules = [Path("autolr/__init__.py"), Path("autolr/policies/__init__.py"), Path("autolr/report/__init__.py")]
    integrations = (sources / "autolr" / "integrations").glob("*.py")
    modules += [Path("autolr/schedules.py"), *sorted(path.relative_to(sources) for path in integrations)]
    for module in modules:
        dotted = ".".join(module.with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse((sources / module).read_text(encoding="utf8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                yield from (f"{dotted}.{name}" for name in ast.literal_eval(node.value))


def undocumented(inventory: Path, sources: Path = SOURCES) -> list[str]:
    """Public names that the built site's inventory does not have, under any of the names they go by."""
    with inventory.open("rb") as file:
        there = set(Inventory.parse_sphinx(file, domain_filter=["py"]))
    return [name for name in public_names(sources) if name not in there | NO_PAGE]


def on_post_build(config: Any) -> None:
    """Warn of each public name that no page documents."""
    for name in undocumented(Path(config.site_dir) / "objects.inv"):
        log.warning("%s is public, and no page documents it: add '::: %s' to a page of docs/api.", name, name)
