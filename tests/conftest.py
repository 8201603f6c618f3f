"""Settings that every test shares."""

import torch
from hypothesis import settings

# The same examples every time: a failure here is a failure everywhere, and a slow machine changes nothing.
settings.register_profile("seeded", max_examples=25, derandomize=True, deadline=None, database=None, print_blob=True)
settings.load_profile("seeded")

torch.set_num_threads(1)  # the networks are small: more threads only make sums depend on the machine
