"""skorch. With AutoLR: a callback of one's own that wraps the net's optimizer."""

from pathlib import Path

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback  # +
from torch import nn

import autolr  # +

table = np.loadtxt(Path(__file__).with_name("digits.csv.gz"), delimiter=",", dtype=np.float32)
images, labels = table[:, :64] / 16, table[:, 64].astype(np.int64)


class Tuned(Callback):  # +
    def on_train_begin(self, net, X=None, y=None, **kwargs):  # +
        def loss_fn(model, batch):  # +
            inputs, targets = batch  # +
            return net.get_loss(model(inputs), targets, X=inputs, training=True)  # +

        train = net.get_split_datasets(X, y)[0] if net.train_split else net.get_dataset(X, y)  # +
        loader = net.get_iterator(train, training=True)  # +
        steps = net.max_epochs * len(loader)  # +
        net.optimizer_ = autolr.AutoLR(net.optimizer_, net.module_, loss_fn, loader, steps)  # +


torch.manual_seed(0)
module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
net = NeuralNetClassifier(
    module, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.AdamW, lr=1e-3, max_epochs=6, batch_size=32,
    iterator_train__shuffle=True, train_split=None, callbacks=[Tuned()],  # +
)  # fmt: skip
net.fit(images[:1440], labels[:1440])

print(net.optimizer_.history[0].reason)
print(f"test accuracy {net.score(images[1440:], labels[1440:]):.3f}")
