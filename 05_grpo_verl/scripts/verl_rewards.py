"""The file that verl's reward workers load: it gives them the rewards' own module, as everything else imports it.

verl runs the file of a reward function under a name that it makes up. Pointed to rl/rewards.py itself, it would hold a
second copy of that module, with a registry of its own, in which rewards of other files never register.
"""

from rl.rewards import compute_score

__all__ = ["compute_score"]
