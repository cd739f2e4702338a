"""Show the CreateTrainingJob request that a ModelTrainer makes, before it is sent."""

import html
import json

from sagemaker.core.training.configs import InputData
from sagemaker.train import ModelTrainer

from workshop.folders import REPOSITORY
from workshop.views.html import HtmlView


def show_request(trainer: ModelTrainer, channels: list[InputData]) -> HtmlView:
    """The request as the API gets it, but for the job's name, which is made anew at each call.

    Data and source are uploaded to say where they will lie in S3, as `trainer.train(dry_run=True)` does. No job is
    created. Paths of this machine are shown as <workshop>.
    """
    # The SDK has no public way to see the request (3.27.0); its pipelines use the same method.
    request = trainer._create_training_job_args(input_data_config=channels, boto3=True)
    request = {key: value for key, value in request.items() if value}
    text = json.dumps(request, indent=1, default=str, ensure_ascii=False).replace(
        str(REPOSITORY), "<workshop>"
    )
    return HtmlView(f"<pre style='font-size: 85%; line-height: 1.25'>{html.escape(text)}</pre>", text)
