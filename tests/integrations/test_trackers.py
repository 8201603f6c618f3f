"""Decisions are in the trackers' own files, as they were taken: written by the real ones, and read back."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autolr
from autolr.integrations.trackers import numbers_of, to_mlflow, to_tensorboard, to_wandb
from training_runs import BATCHES_OF_LINES, cross_entropy, seed_everything

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

PATIENCE = 180.0  # [s] for a server to make its data base, on a busy machine


def trained(on_decision: Any) -> autolr.AutoLR:
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = autolr.AutoLR(
        torch.optim.SGD(model.parameters(), lr=0.05), model, cross_entropy, BATCHES_OF_LINES, 24,
        policy=autolr.ExploreExploit(window=4, superbatch=3, spread=2), on_decision=on_decision,
    )  # fmt: skip
    for batch in BATCHES_OF_LINES * 4:
        optimizer.zero_grad()
        cross_entropy(model, batch).backward()
        optimizer.step()
    assert len(optimizer.history) >= 3
    return optimizer


def expected(optimizer: autolr.AutoLR, name: str) -> list[tuple[int, float]]:
    numbers = [(record.step, numbers_of(record)) for record in optimizer.history]
    return [(step, found[name]) for step, found in numbers if name in found]


def test_tensorboards_event_file_has_them(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        optimizer = trained(to_tensorboard(writer))
    events = EventAccumulator(str(tmp_path)).Reload()
    for name in ("autolr/lr", "autolr/loss", "autolr/eps_min", "autolr/cost/forward_equivalents"):
        wanted = expected(optimizer, name)
        assert len(wanted) >= 1
        assert [event.step for event in events.Scalars(name)] == [step for step, _ in wanted]
        assert [event.value for event in events.Scalars(name)] == pytest.approx([value for _, value in wanted])
    texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("autolr/decision/text_summary")]
    assert texts == [record.reason for record in optimizer.history]


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    """The address of a real server on SQLite, which ends with the test."""
    pytest.importorskip("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}", tmp_path / "server.log"
    with log.open("w") as written:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
             "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts-destination", str(tmp_path)],
            stdout=written, stderr=written, start_new_session=True,
        )  # fmt: skip
    try:
        until = time.monotonic() + PATIENCE
        while not _answers(f"{address}/health"):
            assert server.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < until, f"no answer for {PATIENCE:g} s: {log.read_text()[-2000:]}"
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its workers too
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


@pytest.mark.filterwarnings("ignore")
def test_mlflows_server_has_them(mlflow_server: str, monkeypatch: pytest.MonkeyPatch):
    import mlflow

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    client = mlflow.MlflowClient(tracking_uri=mlflow_server)
    run = client.create_run(client.create_experiment("autolr"))
    optimizer = trained(to_mlflow(client, run.info.run_id))
    again = mlflow.MlflowClient(tracking_uri=mlflow_server)
    for name in ("autolr/lr", "autolr/loss", "autolr/eps_min"):
        history = again.get_metric_history(run.info.run_id, name)
        assert [(point.step, point.value) for point in history] == expected(optimizer, name)
    last = optimizer.history[-1]
    assert again.get_run(run.info.run_id).data.tags[f"autolr.{last.verdict}"] == f"step {last.step}: {last.reason}"


def logged(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: pieces with a header of 7 bytes, in blocks of 32 KiB."""
    place, whole = 7, b""  # behind the file's own header
    while place + 7 <= len(data):
        if 2**15 - place % 2**15 < 7:
            place += 2**15 - place % 2**15
        _, length, kind = struct.unpack_from("<IHB", data, place)
        if place + 7 + length > len(data):
            return  # it is being written
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:  # a whole record, or its last piece
            yield whole
            whole = b""


def decisions_in(file: Path) -> list[dict[str, str]]:
    """The rows of a run's history that are ours."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for data in logged(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            rows += [items] if "autolr/step" in items else []
    return rows


@pytest.mark.filterwarnings("ignore")
def test_w_and_bs_offline_file_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(project="autolr", mode="offline", dir=str(tmp_path))
    run.log({"loss": 1.0}, step=1000)  # the user's own are ahead of the decisions
    optimizer = trained(to_wandb(run))
    run.finish()
    (file,) = tmp_path.rglob("*.wandb")
    wanted, until = expected(optimizer, "autolr/lr"), time.monotonic() + PATIENCE
    while len(rows := decisions_in(file)) < len(wanted) and time.monotonic() < until:
        time.sleep(0.5)  # another process writes it, and may be at it still
    assert [(int(row["autolr/step"]), float(row["autolr/lr"])) for row in rows] == wanted
    assert [json.loads(row["autolr/decision"]) for row in rows] == [record.reason for record in optimizer.history]
