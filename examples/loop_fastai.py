"""fastai. With AutoLR: a callback of one's own that wraps the torch optimizer inside fastai's."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import Callback  # +
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from torch import nn

import autolr  # +

table = np.loadtxt(Path(__file__).with_name("digits.csv.gz"), delimiter=",", dtype=np.float32)
images, labels = torch.from_numpy(table[:, :64] / 16), torch.from_numpy(table[:, 64]).long()
train = list(zip(images[:1440], labels[:1440], strict=True))


class Tuned(Callback):  # +
    def before_fit(self):  # +
        def get_batch():  # + fastai's loader would be iterated, and its own generator moved
            return self.dls.train.create_batch([train[i] for i in torch.randint(len(train), (32,))])  # +

        def loss_fn(model, batch):  # +
            return self.learn.loss_func(model(batch[0]), batch[1])  # +

        steps = self.n_epoch * len(self.dls.train)  # +
        self.opt.opt = autolr.AutoLR(self.opt.opt, self.model, loss_fn, get_batch, steps)  # +


torch.manual_seed(0)
dls = DataLoaders(DataLoader(train, bs=32, shuffle=True, num_workers=0), DataLoader(train[:32], bs=32, num_workers=0))
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
adamw = partial(OptimWrapper, opt=torch.optim.AdamW)
learn = Learner(dls, model, loss_func=nn.CrossEntropyLoss(), opt_func=adamw, lr=1e-3, cbs=[Tuned()])
with learn.no_logging():
    learn.fit(6)

print(learn.opt.opt.history[0].reason)
print(f"test accuracy {(model(images[1440:]).argmax(1) == labels[1440:]).double().mean():.3f}")
