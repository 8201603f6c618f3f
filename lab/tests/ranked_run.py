"""Trains a run as one of its processes, and dies where it is told to: ``torchrun ... ranked_run.py FILE.json``."""

import json
import sys
from pathlib import Path

import torch

from autolr_lab.training.runs import Settings
from autolr_lab.training.training import train
from helpers import Killed, killed_after

torch.set_num_threads(1)
told = json.loads(Path(sys.argv[1]).read_text(encoding="utf8"))
try:
    train(Settings.from_dict(told["settings"]), Path(told["out"]), killed_after(told["kill"]), resume=True, every=0)
except Killed:
    print("killed")
