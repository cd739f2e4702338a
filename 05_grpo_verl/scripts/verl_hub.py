"""verl imports this in each of its processes (VERL_USE_EXTERNAL_MODULES): the Hub's token, and an ear for verl_stacks.

They load the model themselves. The token reaches no process through Ray, which writes the environment that it hands on to
its logs: each reads the secret.
"""

from job.secrets import provide_hub_token
from verl_stacks import listen

provide_hub_token()
listen()
