"""Reinforcement learning proper: tasks, rewards, preferences, generation, evaluation.

`tasks`, `rewards`, `preferences` and `evaluation` can be imported without torch, so that a notebook uses them too.
"""
