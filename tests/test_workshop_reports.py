"""Plots and comparisons show what the numbers say: checked on the drawn objects and on the PNG itself."""

import dataclasses
import io
import math

import pytest
from matplotlib.colors import to_hex
from PIL import Image
from rl.comparison import paired
from rl.evaluation import score_completions
from rl.verifiers import number
from workshop.views.plots import BLUE, moving_mean, plot_training, points, smoothing_window
from workshop.views.reports import ReportError, compare_completions, paired_comparison, plot_pass_at_1

VIEWS = [plot_pass_at_1, paired_comparison, compare_completions]


def history(steps: int, **extra) -> list[dict]:
    return [
        {
            "step": step,
            "reward": step / steps,
            "completions/mean_length": 20.0 + step,
            "entropy": 1 / step,
            "frac_reward_zero_std": 0.25,
            **extra,
        }
        for step in range(1, steps + 1)
    ]


def evaluation(right: set[int], problems: int = 4, cut_off: int = 0):
    """Problem i, answered right if i is in `right`, greedily and in two samples; the first `cut_off` had not ended."""
    tries = [("greedy", 0), ("sampled", 0), ("sampled", 1)]
    return score_completions(
        [
            {
                "index": index,
                "question": f"What is {index} + 0 & <b>?",
                "answer": str(index),
                "decoding": decoding,
                "sample": sample,
                "completion": f"<think></think><answer>{index if index in right else 999}</answer>",
                "tokens": 7,
                "cut_off": index < cut_off,
            }
            for index in range(problems)
            for decoding, sample in tries
        ],
        number,
    )


def titles(plot) -> list[str]:
    return [axes.get_title(loc="left") for axes in plot.figure.axes]


def test_moving_mean():
    assert moving_mean([1.0, 2.0, 3.0, 4.0], 2) == [1.0, 1.5, 2.5, 3.5]
    assert moving_mean([1.0, 5.0], 1) == [1.0, 5.0]
    assert [smoothing_window(count) for count in (1, 9, 10, 80)] == [1, 1, 3, 8]


def test_points_leave_gaps_out():
    logged = [
        {"step": 1, "a": 1.0},
        {"step": 2, "a": math.nan},
        {"step": 3},
        {"a": 5.0},
        {"step": 4, "a": 2, "b": 9.0},
    ]
    assert points(logged, "a") == ([1, 4], [1.0, 2.0])
    assert points(logged, "none") == ([], [])


def test_training_curves_have_units_raw_values_and_their_mean():
    plot = plot_training(history(80))
    assert titles(plot) == [
        "Reward",
        "Completion length",
        "Entropy of the policy",
        "Groups that teach nothing (all rewards equal)",
    ]
    assert [axes.get_ylabel() for axes in plot.figure.axes][1:3] == ["tokens, mean", "nats per token"]
    raw, mean = plot.figure.axes[0].lines
    assert list(raw.get_ydata()) == [step / 80 for step in range(1, 81)]
    assert mean.get_ydata()[-1] == pytest.approx(sum(range(73, 81)) / 8 / 80)
    assert to_hex(mean.get_color()) == BLUE.lower()
    assert "mean of the last 8" in plot.figure.get_supxlabel()
    assert "Reward 0.0125 -> 1" in repr(plot)


def test_kl_takes_its_place_when_it_was_logged():
    assert titles(plot_training(history(5, kl=0.1)))[-1] == "KL divergence from the base model"


def test_one_step_and_one_curve_can_be_drawn():
    plot = plot_training([{"step": 1, "reward": 0.5}])
    assert titles(plot) == ["Reward"] and plot._repr_png_()


def test_an_empty_history_is_said_to_be_empty():
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_training([{"step": 1, "unknown": 2.0}])


def test_the_png_is_a_readable_size_and_small(tmp_path):
    path = plot_training(history(80)).save(tmp_path / "plots" / "training.png")
    image = Image.open(path)
    assert image.size[0] >= 900 and image.size[1] >= 500
    assert path.stat().st_size < 80_000


def shown(plot) -> list[str]:
    """The texts in the panel, from above."""
    (axes,) = plot.figure.axes
    down = axes.yaxis_inverted()
    texts = sorted(axes.texts, key=lambda text: text.xy[1], reverse=not down)
    return [text.get_text() for text in texts]


def test_pass_at_1_shows_value_and_interval_of_all_six():
    before, after = evaluation({0, 1}), evaluation({0, 1, 2, 3})
    plot = plot_pass_at_1(before, after)
    (axes,) = plot.figure.axes
    bars = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    pairs = [(before.sampled, after.sampled), (before.greedy, after.greedy)]
    pairs.append((before.pass_at(2), after.pass_at(2)))
    assert bars == [(found.low, found.high) for pair in pairs for found in pair]
    assert shown(plot) == ["before 0.500", "after 1.000"] * 3
    names = [label.get_text().partition("\n")[0] for label in axes.get_yticklabels()]
    assert names == ["sampled pass@1", "greedy pass@1", "pass@2"] and axes.yaxis_inverted()
    assert "share of 4 held-out problems" in axes.get_xlabel()
    assert Image.open(io.BytesIO(plot._repr_png_())).size[0] > 700


def test_the_paired_comparison_stands_below_pass_at_1_and_in_its_line():
    before, after = evaluation({0, 1}), evaluation({1, 2, 3})
    compared = str(paired(before, after))
    assert "2 fixed, 1 broken of 4 (McNemar, p = 1.000)" in compared
    plot = plot_pass_at_1(before, after)
    assert repr(plot).endswith(f"pass@2 0.500 -> 0.750; {compared}")
    assert compared in plot.figure.get_supxlabel().replace("\n", "; ")
    view = paired_comparison(before, after)
    assert repr(view) == compared and compared in view._repr_html_()


def test_one_sample_of_each_problem_makes_no_pass_at_k():
    both = evaluation({0, 1})
    first = [item for item in both.completions if item["sample"] == 0]
    one = score_completions(first, number)
    assert one.samples == 1
    assert len(plot_pass_at_1(one, one).figure.axes[0].get_yticks()) == 2
    assert "pass@2" not in repr(plot_pass_at_1(one, both))


def test_the_share_that_was_cut_off_stands_beside_pass_at_1():
    plot = plot_pass_at_1(evaluation({3}, cut_off=3), evaluation({0, 1, 2, 3}))
    labels = ["before 0.250 (75% cut off)", "after 1.000"] * 2
    assert shown(plot) == [*labels, "before 0.250", "after 1.000"]
    assert "greedy pass@1 0.250 (75% cut off) -> 1.000" in repr(plot)
    few = plot_pass_at_1(evaluation(set(), 300, cut_off=1), evaluation(set(), 300))
    assert "0.000 (under 1% cut off) -> 0.000" in repr(few)
    old = dataclasses.replace(evaluation({0}), cut_off={})  # of an earlier version
    assert "cut off" not in repr(plot_pass_at_1(old, old))


@pytest.mark.parametrize("before", [set(), {0}, {0, 1}, {0, 1, 2}, {0, 1, 2, 3}])
@pytest.mark.parametrize("cut_off", [0, 3])
@pytest.mark.parametrize("problems", [4, 200])  # of few, an interval leaves no room beside it
def test_no_text_leaves_the_picture_or_lies_on_another(before, cut_off, problems):
    right = {index for index in range(problems) if index % 4 in before}
    base = evaluation(right, problems, cut_off=cut_off * problems // 4)
    plot = plot_pass_at_1(base, evaluation({0, 3}, problems))
    figure = plot.figure
    figure.draw_without_rendering()
    (axes,) = figure.axes
    texts = [*axes.texts, axes.xaxis.label, *axes.get_yticklabels(), *axes.get_xticklabels(), *figure.texts]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert len(boxes) >= 6 + 3 + 2
    for at, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:at])


def test_a_completion_that_was_cut_off_says_so():
    view = compare_completions(evaluation(set(), cut_off=1), evaluation({0}), n=1)
    for shown in (repr(view), view._repr_html_()):
        assert shown.count("7 tokens, cut off") == 1 and shown.count("7 tokens") == 2


def test_completions_side_by_side_take_every_kind_in_turn():
    view = compare_completions(evaluation({1, 3}), evaluation({2, 3}), n=3)
    text = repr(view)
    assert "4 problems: 1 fixed, 1 broken, 1 still right, 1 still wrong" in text
    assert [text.index(f"What is {index} +") for index in (2, 1, 3)] == sorted(
        text.index(f"What is {index} +") for index in (2, 1, 3)
    )
    assert "What is 0 +" not in text
    assert text.count("\u2713 right") == 4 and text.count("\u2717 wrong") == 2


def test_what_a_model_wrote_cannot_become_part_of_the_page():
    html = compare_completions(evaluation({0}), evaluation({0}), n=1)._repr_html_()
    assert "&lt;think&gt;" in html and "<think>" not in html
    assert "0 + 0 &amp; &lt;b&gt;?" in html and "& <b>" not in html


def test_evaluations_of_different_problems_are_not_compared():
    for view in VIEWS:
        with pytest.raises(ReportError, match="different problems"):
            view(evaluation({0}), evaluation({0}, problems=5))


@pytest.mark.parametrize("view", VIEWS)
def test_a_job_that_left_no_evaluation_after_training(view):
    with pytest.raises(ReportError, match="no evaluation after training.*time limit.*max_hours"):
        view(evaluation({0}), None)
    with pytest.raises(ReportError, match="no evaluation before training"):
        view(None, evaluation({0}))
