"""The optimizers of each package that is installed, each as a function that makes it for a network."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import io
import pkgutil
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

PACKAGES = {  # to be imported -> to be installed
    "torch.optim": "torch", "pytorch_optimizer": "pytorch_optimizer", "timm.optim": "timm",
    "schedulefree": "schedulefree", "prodigyopt": "prodigyopt", "dadaptation": "dadaptation",
    "lion_pytorch": "lion-pytorch", "torchao.optim": "torchao", "bitsandbytes.optim": "bitsandbytes",
    "galore_torch": "galore-torch", "transformers.optimization": "transformers",
}  # fmt: skip
LR = 1e-3  # of those without a rate of their own

Made = Callable[[nn.Module], Any]  # an optimizer, or a list of those that train together


@dataclass(frozen=True)
class Candidate:
    """An optimizer to be checked."""

    package: str
    name: str
    version: str
    make: Made


def candidates(packages: dict[str, str] | None = None) -> Iterator[Candidate]:
    """All of those packages that are there, in their order; within a package by name."""
    for package, distribution in (PACKAGES if packages is None else packages).items():
        if importlib.util.find_spec(package.partition(".")[0]) is None:
            continue
        version = importlib.metadata.version(distribution)
        for name, kind in _kinds(package).items():
            yield Candidate(distribution, name, version, _maker(package, name, kind))


def _kinds(package: str) -> dict[str, type[Optimizer]]:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        modules = _files_of_timm() if package == "timm.optim" else [importlib.import_module(package)]
    found: dict[str, type[Optimizer]] = {}
    for module in modules:
        for name, kind in vars(module).items():
            own = inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
            if own and name[0] != "_" and _is_of(kind, package) and kind not in found.values():
                found.setdefault(name, kind)
    return {name: found[name] for name in sorted(found)}


def _is_of(kind: type, package: str) -> bool:
    return kind.__module__.startswith(package.partition(".")[0])


def _files_of_timm() -> list[types.ModuleType]:
    """The optimizers of timm, file by file: the package itself wants torchvision."""
    for name in ("timm", "timm.optim"):
        if name not in sys.modules:
            stub = types.ModuleType(name)
            spec = importlib.util.find_spec(name)
            assert spec is not None
            stub.__path__ = list(spec.submodule_search_locations or ())
            sys.modules[name] = stub
    names = [file.name for file in pkgutil.iter_modules(sys.modules["timm.optim"].__path__)]
    own = [name for name in names if name[0] != "_" and "factory" not in name]  # those want the models
    return [importlib.import_module(f"timm.optim.{name}") for name in own]


def _maker(package: str, name: str, kind: type[Optimizer]) -> Made:
    if (package, name) in SPECIAL:
        return SPECIAL[package, name](kind)
    return SPECIAL_NAMES.get(name, _plain)(kind)


def _plain(kind: Any) -> Made:
    """With the rate that it has by itself, or a small one."""
    has_rate = isinstance(inspect.signature(kind).parameters.get("lr", None), inspect.Parameter)
    default = inspect.signature(kind).parameters["lr"].default if has_rate else None
    usable = isinstance(default, float)
    return lambda model: kind(list(model.parameters()), **({} if usable or not has_rate else {"lr": LR}))


def _matrices_only(kind: Any) -> Made:
    """It, for the matrices, together with AdamW for the rest."""

    def make(model: nn.Module) -> list[Optimizer]:
        matrices, rest = _split(model)
        return [kind(matrices, lr=0.02), AdamW(rest, lr=0.003)]

    return make


def _marked_groups(kind: Any) -> Made:
    """It, told by a group's entry which parameters are matrices."""

    def make(model: nn.Module) -> Optimizer:
        matrices, rest = _split(model)
        return kind([{"params": matrices, "use_muon": True}, {"params": rest, "use_muon": False}])  # type: ignore[no-any-return]

    return make


def _with(**settings: Any) -> Callable[[Any], Made]:
    return lambda kind: lambda model: kind(list(model.parameters()), **settings)


def _around(kind: Any) -> Made:
    """It, around AdamW."""
    return lambda model: kind(AdamW(model.parameters(), lr=LR))


def _named(kind: Any) -> Made:
    return lambda model: kind(list(model.named_parameters()), lr=LR)


def _of_model(kind: Any) -> Made:
    return lambda model: kind(model, lr=LR)


def _around_of(kind: Any) -> Made:
    return lambda model: kind(list(model.parameters()), base_optimizer=AdamW, lr=LR)


def _low_rank(kind: Any) -> Made:
    """GaLore, with its projection for the matrices."""

    def make(model: nn.Module) -> Optimizer:
        matrices, rest = _split(model)
        projected = {"params": matrices, "rank": 8, "update_proj_gap": 20, "scale": 1.0, "proj_type": "std"}
        return kind([{"params": rest}, projected], lr=LR)  # type: ignore[no-any-return]

    return make


def _split(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    parameters = list(model.parameters())
    return [p for p in parameters if p.ndim == 2], [p for p in parameters if p.ndim != 2]


SPECIAL_NAMES: dict[str, Callable[[Any], Made]] = {
    **dict.fromkeys(("Lookahead", "OrthoGrad", "TRAC", "ScheduleFreeWrapper", "PCGrad", "SafeFP16Optimizer"), _around),
    **dict.fromkeys(("SAM", "GSAM", "WSAM", "LookSAM", "FriendlySAM", "BSAM"), _around_of),
    **dict.fromkeys(("AdamMini", "LOMO", "AdaLOMO"), _of_model),
}
SPECIAL: dict[tuple[str, str], Callable[[Any], Made]] = {
    ("torch.optim", "Muon"): _matrices_only,
    ("timm.optim", "Muon"): _plain,
    **{("pytorch_optimizer", name): _marked_groups for name in ("Muon", "AdaMuon", "AdaGO", "NorMuon", "MuonClip")},
    ("galore_torch", "GaLoreAdamW"): _low_rank,
    ("galore_torch", "GaLoreAdamW8bit"): _low_rank,
    ("galore_torch", "GaLoreAdafactor"): _with(lr=LR, relative_step=False),
    ("pytorch_optimizer", "AdaFactor"): _with(lr=LR, relative_step=False),
    ("timm.optim", "Adafactor"): _with(lr=LR),
    ("transformers.optimization", "Adafactor"): _with(lr=LR, relative_step=False),
    ("torchao.optim", "CPUOffloadOptimizer"): _around_of,
}
