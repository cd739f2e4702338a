"""Jobs of all five modules that are killed on purpose: which (cases), how they run (jobs), whom it hits (processes), what must hold (verdicts)."""
