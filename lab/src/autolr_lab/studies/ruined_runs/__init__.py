"""Runs that an automatic rate must not ruin: situations that people report in public, rewritten small.

``python -m autolr_lab.studies.ruined_runs`` runs each beside a hand-set cosine and a fixed rate, and prints a table.
"""
