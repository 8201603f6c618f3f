"""The experiments on AutoLR: a package of its own, never published."""
