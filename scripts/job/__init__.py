"""What a training job needs around its training: recipe, container, models, checkpoints, tracking, failure reports.

`arguments`, `recipe`, `settings`, `metrics` and `container` need no torch, so that the notebook side uses them too.
"""

from job.caches import use_large_disk

use_large_disk()  # here, since it has to come before transformers and others are imported
