"""The zoo: many small training tasks, each run over a full grid of peak rates, to learn from and to report on."""
