"""What scripts use of `sagemaker_training`, which AWS's images bring: `sagemaker_training.environment.Environment`.

The package itself (https://github.com/aws/sagemaker-training-toolkit, 5.1.4) has no wheel: installing it needs a C compiler, and
flags that only Linux's knows, for a library that its own MPI launcher preloads. So jobs find this one, unless they install
that one: name `sagemaker-training` in the job's requirements.txt.
"""
