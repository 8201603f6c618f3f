"""Choosing among names: a refusal that says what is near, and completion in the shell."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from enum import Enum

import typer


class Device(str, Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(str, Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"


class Budget(str, Enum):
    small = "small"
    full = "full"


def one_of(kind: str, names: Iterable[str], value: str) -> str:
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


def checked(kind: str, names: Iterable[str]) -> Callable[[str | None], str | None]:
    """The callback of an option that takes one of ``names``."""
    return lambda value: None if value is None else one_of(kind, names, value)


def completed(names: Iterable[str]) -> Callable[[], list[str]]:
    """What the shell offers for such an option, as far as it begins like what is typed."""
    return lambda: list(names)


def parts(listed: str) -> list[str]:
    """What commas separate, without empty ones."""
    return [part.strip() for part in listed.split(",") if part.strip()]
