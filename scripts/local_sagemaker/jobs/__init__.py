"""The life of a training job: its turn in the queue, its attempts, its data, logs, checkpoints and artifacts."""
