"""Dollars: what a job costs at most and about, before it is created, and what its billable seconds cost, after.

    job_cost(training_job(trainer))

Prices are on demand, from instances.json. A job's storage and its data's way are not in them.
"""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workshop.checks.duration import in_words, job_duration
from workshop.checks.instances import hourly_price, price_source
from workshop.checks.request import NOTE, OK, WARNING, Check, JobRequest
from workshop.jobs.status import aws_client, is_local

PRICES_TODAY = "https://aws.amazon.com/sagemaker/ai/pricing/"


def check_cost(request: JobRequest, settings: dict[str, Any]) -> Check:
    """The most that the job can cost (price x hosts x maximal run time), and what it costs if it takes as long as estimated."""
    limit = f"stops after {in_words(request.max_runtime_s)} at the latest"
    if request.local:
        return Check("cost", OK, f"runs on this machine: no cost; {limit}")
    if request.training_plan:
        text = f"runs in the capacity of a training plan, which was paid for in advance; {limit}"
        return Check("cost", NOTE, text)
    price = hourly_price(request.instance_type) if request.instance_type else None
    if price is None:
        text = f"the price of {request.instance_type} is not known here; {limit}. See {PRICES_TODAY}"
        return Check("cost", WARNING, text)
    most = price * request.hosts * request.max_runtime_s / 3600
    expected = job_duration(request, settings)
    about = ""
    if expected and expected.total < request.max_runtime_s:
        about = f", about ${price * request.hosts * expected.total / 3600:,.2f} if it takes {in_words(expected.total)}"
    spot = ", on demand; spot costs less" if request.spot else ""
    source = price_source(str(request.instance_type))
    return Check(
        "cost",
        NOTE,
        f"at most ${most:,.2f}{about}: {request.hosts} x ${price:.3f} an hour{spot}, {limit} (prices: {source})",
    )


def check_warm_pool(request: JobRequest) -> Iterator[Check]:
    """What it costs that the instances wait for the next job. How long they may is for check_numbers to say."""
    seconds = request.keep_alive_s
    if request.local or not seconds:
        return
    price = hourly_price(request.instance_type) if request.instance_type else None
    idle = f"after the job the instances wait {in_words(seconds)} for the next one, and waiting is billed like running"
    if price is None:
        yield Check("warm pool", WARNING, f"{idle}; the price of {request.instance_type} is not known here")
        return
    most, minute = price * request.hosts * seconds / 3600, price * request.hosts / 60
    text = f"{idle}: at most ${most:,.2f} (${minute:.3f} a minute), each time no other job takes them over"
    yield Check("warm pool", NOTE, text)


@dataclass(frozen=True)
class Cost:
    """What a job cost; a notebook shows it as a sentence."""

    job_name: str
    dollars: float | None  # None: not known
    seconds: int  # billed for each instance
    instances: int
    instance_type: str
    source: str  # how the dollars were found, or why they are not known

    def __str__(self) -> str:
        dollars = "not known" if self.dollars is None else f"${self.dollars:,.2f}"
        return f"{self.job_name}: {dollars}, {self.instances} x {self.instance_type} for {in_words(self.seconds)} ({self.source})"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>"


def job_cost(training_job: Any) -> Cost:
    """What the billable seconds of a job cost: of the SDK's TrainingJob as `training_job(trainer)` reads it, when it has ended.

    SageMaker bills BillableTimeInSeconds for each instance; for a spot job these are fewer than it ran. Seconds for which a warm
    pool waited since are added.
    """
    resources = training_job.resource_config
    name, count = resources.instance_type, resources.instance_count
    seconds = _number(training_job.billable_time_in_seconds)
    waited = _number(getattr(training_job.warm_pool_status, "resource_retained_billable_time_in_seconds", 0))
    dollars, source = _dollars(training_job, name, count, seconds + waited)
    if waited and dollars:
        source += f"; {in_words(waited)} of it in the warm pool"
    return Cost(training_job.training_job_name, dollars, seconds + waited, count, name, source)


def _number(value: Any) -> int:
    """The SDK marks fields that SageMaker has not filled in with an object of its own."""
    return value if isinstance(value, int) else 0


def _dollars(training_job: Any, name: str, count: int, seconds: int) -> tuple[float | None, str]:
    if is_local(aws_client("sagemaker")):
        return 0.0, "ran on this machine: no cost"
    if not seconds:
        return None, "SageMaker has not reported billable seconds yet"
    if getattr(training_job.resource_config, "training_plan_arn", None):
        return 0.0, "ran in a training plan, which was paid for in advance"
    price = hourly_price(name)
    if price is None:
        return None, f"{price_source(name)}; see {PRICES_TODAY}"
    source = f"${price:.3f} an hour on demand, {price_source(name)}"
    if training_job.enable_managed_spot_training is True:
        source = f"at most: a spot job's billable seconds at {source}"
    return price * count * seconds / 3600, source
