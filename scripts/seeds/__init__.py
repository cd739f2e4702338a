"""Recorded runs: a notebook's comparisons, made over several seeds and kept as CSV (docs/recorded-runs.md)."""
