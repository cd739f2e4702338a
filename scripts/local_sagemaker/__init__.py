"""A SageMaker endpoint on this machine: takes CreateTrainingJob requests and runs them as processes.

`python -m local_sagemaker serve` starts it; `local_sagemaker.client` finds, starts and connects to one.
"""
