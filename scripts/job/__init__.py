"""What a training job needs around its training: recipe, container, models, checkpoints, tracking, failure reports.

`arguments`, `recipe`, `settings`, `metrics` and `container` need no torch, so that the notebook side uses them too.
"""
