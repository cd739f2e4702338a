"""What every training job of the workshop imports: tasks, rewards, evaluation, models, tracking, failure reports.

`tasks`, `rewards`, `recipe`, `container` and `evaluation` can be imported without torch, so a notebook uses them too.
"""
