"""verl imports this in each of its processes (VERL_USE_EXTERNAL_MODULES), which load the model themselves: the Hub's token.

The token reaches no process through Ray, which writes the environment that it hands on to its logs: each reads the secret.
"""

from job.secrets import provide_hub_token

provide_hub_token()
