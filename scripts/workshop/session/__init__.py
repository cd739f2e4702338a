"""Before the first job: versions checked, SageMaker (or this machine) connected, source staged."""
