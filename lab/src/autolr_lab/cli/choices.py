"""What the commands share: the console, and choosing among names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import typer
from rich.console import Console

console = Console()


def known(kind: str, names: Iterable[str], value: str) -> str:
    """``value`` if it is one of ``names``.

    Raises:
        BadParameter: it is none; with those that are near, and all there are.
    """
    allowed = list(names)
    if value in allowed:
        return value
    near = difflib.get_close_matches(value, allowed, n=3, cutoff=0.5)
    nearest = f" Did you mean {' or '.join(near)}?" if near else ""
    raise typer.BadParameter(f"There is no {kind} {value!r}.{nearest} There are: {', '.join(allowed)}.")


def parts(listed: str) -> list[str]:
    """What commas separate, without empty ones."""
    return [part.strip() for part in listed.split(",") if part.strip()]
