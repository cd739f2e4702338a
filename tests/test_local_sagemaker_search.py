"""Search of training jobs: every operator, every kind of property, order and pages, without an endpoint."""

from datetime import datetime

import pytest
from local_sagemaker.api.search import search
from moto.sagemaker.exceptions import ValidationError


def job(name: str, day: int, **parts: object) -> dict:
    return {
        "TrainingJobName": name,
        "TrainingJobStatus": "Completed",
        "CreationTime": datetime(2026, 1, day),
        "LastModifiedTime": datetime(2026, 1, day, 12),
        "Tags": [],
        **parts,
    }


JOBS = [
    job(
        "dpo-one",
        3,
        HyperParameters={"lr": "0.5", "model": "small", "a.b": "yes"},
        FinalMetricDataList=[{"MetricName": "loss", "Value": 0.25}],
        Tags=[{"Key": "module", "Value": "01"}],
        ResourceConfig={"InstanceCount": 1, "InstanceType": "ml.g5.xlarge"},
        EnableManagedSpotTraining=True,
        InputDataConfig=[
            {"ChannelName": "train", "DataSource": {"S3DataSource": {"S3Uri": "s3://b/dogs"}}},
            {"ChannelName": "test", "DataSource": {"S3DataSource": {"S3Uri": "s3://b/cats"}}},
        ],
    ),
    job(
        "grpo-two",
        1,
        HyperParameters={"lr": "1.7"},
        FinalMetricDataList=[{"MetricName": "loss", "Value": 1.5}],
        Tags=[{"Key": "module", "Value": "02"}],
        ResourceConfig={"InstanceCount": 2, "InstanceType": "ml.m5.large"},
        EnableManagedSpotTraining=False,
    ),
    job("grpo-three", 2, TrainingJobStatus="Failed", FailureReason="AlgorithmError: of old"),
]


def names(answer: dict) -> list[str]:
    return [result["TrainingJob"]["TrainingJobName"] for result in answer["Results"]]


def found(*filters: tuple, **request: object) -> list[str]:
    """Names that the (name, operator, value) filters leave, in the order of creation."""
    keys = ("Name", "Operator", "Value")
    expression = {"Filters": [dict(zip(keys, one, strict=False)) for one in filters]}
    order = {"SortBy": "CreationTime", "SortOrder": "Ascending"}
    return names(
        search({"Resource": "TrainingJob", "SearchExpression": expression, **order, **request}, JOBS)
    )


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (("TrainingJobName", "Equals", "dpo-one"), "dpo-one"),
        (("TrainingJobName", "NotEquals", "dpo-one"), "grpo-two grpo-three"),
        (("TrainingJobName", "Contains", "grpo"), "grpo-two grpo-three"),
        (("TrainingJobName", "In", "dpo-one, grpo-two,other"), "grpo-two dpo-one"),
        (("FailureReason", "Exists"), "grpo-three"),
        (("FailureReason", "NotExists"), "grpo-two dpo-one"),
        (("ResourceConfig.InstanceCount", "GreaterThan", "1"), "grpo-two"),
        (("ResourceConfig.InstanceCount", "GreaterThanOrEqualTo", "1.0"), "grpo-two dpo-one"),
        (("ResourceConfig.InstanceCount", "LessThan", "2"), "dpo-one"),
        (("ResourceConfig.InstanceCount", "NotEquals", "2"), "grpo-three dpo-one"),
        (("CreationTime", "LessThanOrEqualTo", "2026-01-02T00:00:00"), "grpo-two grpo-three"),
        (("CreationTime", "Equals", "2026-01-03T01:00:00+01:00"), "dpo-one"),
        (("EnableManagedSpotTraining", "Equals", "true"), "dpo-one"),
        (("Tags.module", "Equals", "02"), "grpo-two"),
        (("Tags.module", "Exists"), "grpo-two dpo-one"),
        (("Metrics.loss", "LessThan", "0.9"), "dpo-one"),
        (("HyperParameters.lr", "LessThan", "1.5"), "dpo-one"),
        (("HyperParameters.lr", "Equals", "1"), "grpo-two"),  # an integer is compared with integers
        (("HyperParameters.lr", "Equals", "1.0"), ""),
        (("HyperParameters.model", "Contains", "mal"), "dpo-one"),
        (("HyperParameters.a.b", "Equals", "yes"), "dpo-one"),
        (("InputDataConfig.ChannelName", "Equals", "test"), "dpo-one"),
    ],
)
def test_one_filter(condition, expected):
    assert found(condition) == expected.split()


def test_a_filter_without_an_operator_is_equals():
    expression = {"Filters": [{"Name": "TrainingJobStatus", "Value": "Failed"}]}
    assert names(search({"Resource": "TrainingJob", "SearchExpression": expression}, JOBS)) == ["grpo-three"]


def test_all_or_any_of_an_expression_that_has_others_in_it():
    failed = {"Filters": [{"Name": "TrainingJobStatus", "Operator": "Equals", "Value": "Failed"}]}
    large = {"Filters": [{"Name": "ResourceConfig.InstanceCount", "Operator": "GreaterThan", "Value": "1"}]}
    both = {"SubExpressions": [failed, large]}
    assert names(search({"Resource": "TrainingJob", "SearchExpression": both}, JOBS)) == []
    either = {"Resource": "TrainingJob", "SearchExpression": {**both, "Operator": "Or"}}
    assert names(search(either, JOBS)) == ["grpo-three", "grpo-two"], "the last modified comes first"


@pytest.mark.parametrize(("uri", "expected"), [("s3://b/dogs", ["dpo-one"]), ("s3://b/cats", [])])
def test_a_nested_filter_is_of_one_item(uri, expected):
    """Of the channel `train`; the job has the other address in another channel."""
    nested = {
        "NestedPropertyName": "InputDataConfig",
        "Filters": [
            {"Name": "InputDataConfig.ChannelName", "Operator": "Equals", "Value": "train"},
            {"Name": "InputDataConfig.DataSource.S3DataSource.S3Uri", "Operator": "Equals", "Value": uri},
        ],
    }
    request = {"Resource": "TrainingJob", "SearchExpression": {"NestedFilters": [nested]}}
    assert names(search(request, JOBS)) == expected


def test_order_and_pages():
    request = {
        "Resource": "TrainingJob",
        "SortBy": "Metrics.loss",
        "SortOrder": "Descending",
        "MaxResults": 2,
    }
    first = search(request, JOBS)
    assert names(first) == ["grpo-two", "dpo-one"] and first["TotalHits"]["Value"] == 3
    second = search({**request, "NextToken": first["NextToken"]}, JOBS)
    assert names(second) == ["grpo-three"], "a job without the metric comes last"
    assert "NextToken" not in second
    with pytest.raises(ValidationError, match="NextToken='tomorrow'"):
        search({**request, "NextToken": "tomorrow"}, JOBS)


def test_only_what_a_tag_makes_visible():
    conditions = [{"Key": "Tags.module", "Value": "01"}]
    answer = search({"Resource": "TrainingJob", "VisibilityConditions": conditions}, JOBS)
    assert names(answer) == ["dpo-one", "grpo-three"], "a job without the tag is visible"


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (("NoSuchThing", "Equals", "1"), "Unknown property name: NoSuchThing"),
        (("ResourceConfig.Nothing", "Exists"), "Unknown property name: ResourceConfig.Nothing"),
        (("ResourceConfig", "Exists"), "Unknown property name: ResourceConfig"),
        (("TrainingJobName", "GreaterThan", "a"), "GreaterThan is not supported for text properties"),
        (("ResourceConfig.InstanceCount", "Contains", "1"), "Contains is only supported for text properties"),
        (("ResourceConfig.InstanceCount", "Equals", "two"), "needs a number as its Value, not 'two'"),
        (("HyperParameters.lr", "LessThan", "fast"), "needs a number"),
        (("CreationTime", "GreaterThan", "yesterday"), "needs a time such as"),
        (("EnableManagedSpotTraining", "Equals", "1"), "needs true or false"),
        (("TrainingJobName", "Equals"), "needs a Value for its Operator Equals"),
    ],
)
def test_a_filter_that_cannot_be_says_why(condition, words):
    """Even where there is no job to apply it to."""
    expression = {"Filters": [dict(zip(("Name", "Operator", "Value"), condition, strict=False))]}
    with pytest.raises(ValidationError) as caught:
        search({"Resource": "TrainingJob", "SearchExpression": expression}, [])
    assert words in str(caught.value)


def test_what_an_expression_may_not_have():
    contains = {"Name": "TrainingJobName", "Operator": "Contains", "Value": "o"}
    status = {"Name": "TrainingJobStatus", "Value": "Failed"}
    for expression, words in (
        ({"Filters": [contains, contains]}, "'CONTAINS' operator usage limit of 1 exceeded."),
        ({"SubExpressions": [{"Filters": [status] * 20}] * 3}, "has 63 elements; at most 50"),
        ({"Operator": "Or"}, "at least one of Filters, NestedFilters and SubExpressions"),
        (
            {"NestedFilters": [{"NestedPropertyName": "RoleArn", "Filters": [status]}]},
            "'RoleArn' is not a list",
        ),
    ):
        with pytest.raises(ValidationError, match=words):
            search({"Resource": "TrainingJob", "SearchExpression": expression}, JOBS)


def test_only_training_jobs_of_this_account():
    with pytest.raises(ValidationError, match="Search of Experiment"):
        search({"Resource": "Experiment"}, JOBS)
    with pytest.raises(ValidationError, match="CrossAccountFilterOption"):
        search({"Resource": "TrainingJob", "CrossAccountFilterOption": "CrossAccount"}, JOBS)
