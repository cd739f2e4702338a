"""Bad inputs, and what becomes of each: scripts/try_bad_inputs.py tries them all, tests a few."""
