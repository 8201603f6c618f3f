"""Which optimizers AutoLR works with: each of several packages, checked in the same way."""
