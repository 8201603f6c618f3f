"""Settings that every test shares."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "dist", "no") != "no" and not hasattr(config, "workerinput"):
        return  # xdist's controller runs no test: it needs no torch
    import torch
    from hypothesis import settings

    # The same examples every time: a failure here is a failure everywhere, and a slow machine changes nothing.
    settings.register_profile(
        "seeded", max_examples=25, derandomize=True, deadline=None, database=None, print_blob=True
    )
    settings.load_profile("seeded")
    torch.set_num_threads(1)  # the networks are small: more threads only make sums depend on the machine


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # The first import their frameworks when they are collected, which takes seconds in each process.
    others = {"integrations": "not frameworks", "browser": "not browser"}
    return True if others.get(collection_path.name, " ") in config.option.markexpr.split(" and ") else None


@pytest.fixture
def _no_vega(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's page without its drawing library, which takes seconds to pack; tests/browser has the whole page."""
    monkeypatch.setattr(importlib.import_module("autolr.report.page"), "_vega", lambda: "/* Vega */")


@pytest.fixture(autouse=True)
def _the_autocast_cache_is_on_again() -> Iterator[None]:
    import torch

    yield
    leaked = not torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(True)  # one failure must not fail the tests after it
    assert not leaked, "a probe left autocast's weight cache off"
