"""An outside yardstick: problems of DeepOBS, rebuilt, beside the best of the 36 constant rates that its authors ran.

Schneider, Balles and Hennig, "DeepOBS: a deep learning optimizer benchmark suite", ICLR 2019; the published runs are
those of fsschneider/DeepOBS_Baselines. Four problems that fit on a CPU core: ``quadratic_deep``, ``mnist_vae``,
``fmnist_vae`` and ``fmnist_2c2d``, with SGD, momentum of 0.99 and Adam, in their batch sizes and for their epochs.

Ours is `find_peak` from a rate that nobody has tuned, and AutoLR's schedule over what the search leaves of the steps.

Their minibatches are the same in every epoch, in the same order: a seeded iterator of TensorFlow 1 begins anew with the
same shuffling. The paper does not say so; the published losses of ``quadratic_deep`` do. With momentum of 0.99 they end
at 87.045 +- 0.025 on the test set; with one order we come to 87.045 +- 0.029, with a new order every epoch to
88.6 +- 0.8. So it is here, for all runs.

Differs from theirs: examples are shuffled all together where theirs come through a buffer of 20,000; weights are laid
out as torch has them.
"""
