"""The files of every workload in their published forms, small and made of nothing."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from autolr_lab.workloads.cifar10 import BATCHES
from autolr_lab.workloads.mnist import FILES
from test_imagenet import write_tree
from test_mnist import idx_bytes
from test_shakespeare import write_text
from test_squad import write_small
from test_squad_minilm import short_articles
from test_translation import MULTI30K, write_numbers


def write_all(root: Path) -> Path:
    """For one epoch of each."""
    rng = np.random.default_rng(0)
    for folder in ("mnist", "fashion-mnist"):
        (root / folder).mkdir()
        for name in FILES:
            n = 640 if name.startswith("train") else 100
            shape = (n, 28, 28) if "images" in name else (n,)
            high = 256 if "images" in name else 10
            (root / folder / name).write_bytes(idx_bytes(rng.integers(high, size=shape, dtype=np.uint8)))
    (root / "cifar-10-batches-py").mkdir()
    for name in (*BATCHES["train"], *BATCHES["test"]):
        batch = {b"data": rng.integers(256, size=(256, 3072), dtype=np.uint8), b"labels": [i % 10 for i in range(256)]}
        (root / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(batch))
    write_tree(root / "tiny-imagenet-10", train=44, kinds=["n01", "n02", "n03", "n04", "n05", "n06"])
    write_text(root / "tinyshakespeare")
    write_small(root, short_articles(12))
    write_numbers(root / "multi30k" / "raw", MULTI30K.corpus, n=400)
    return root
