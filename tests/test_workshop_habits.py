"""The table and the plot of habits show what rl.habits counts; checked on texts and on the drawn bars."""

import pytest
from matplotlib.colors import to_hex
from rl.habits import HABITS, habits
from rl.tasks import DataError
from scored import scored
from workshop import habits_table, plot_habits

THOUGHT, WRONG = "<think>2 + 7 = 9</think><answer>9</answer>", "<think>2 + 7 = 8</think><answer>8</answer>"
DIRECT, SENTENCE = "<think></think><answer>8</answer>", "It is 8 & <b>."


def evaluation(greedy: str, *sampled: str, problems: int = 4):
    """Every problem has the answer 9 and is answered with the same texts."""
    tries = [("greedy", 0, greedy), *(("sampled", number, text) for number, text in enumerate(sampled))]
    return scored(
        ((index, *one) for index in range(problems) for one in tries), question="Problem {index}: 9 ="
    )


@pytest.fixture
def models():
    return {
        "base": evaluation(DIRECT, THOUGHT, DIRECT, DIRECT, SENTENCE),
        "GRPO": evaluation(THOUGHT, THOUGHT, THOUGHT, THOUGHT, WRONG),
    }


def cells(view) -> list[list[str]]:
    """The rows of the table as a notebook shows it, the header first."""
    return [
        [cell.split("<")[0] for cell in row.replace("<th>", "<td>").split("<td>")[1:]]
        for row in view._repr_html_().split("<tr>")[1:]
    ]


def test_the_table_has_two_rows_for_each_model(models):
    header, *rows = cells(habits_table(models))
    assert header == [
        "decoding",
        "model",
        *HABITS,
        "right when it thinks",
        "false steps",
        "pass@1",
        "pass@4",
    ]
    # All problems have one answer each, so that the intervals are those of values all alike.
    assert rows == [
        ["sampled", "base", "25.0%", "50.0%", "25.0%", "100.0%", "0.0%", "0.250 [0.046, 0.699]", *SURE],
        ["sampled", "GRPO", "100.0%", "0.0%", "0.0%", "75.0%", "25.0%", "0.750 [0.301, 0.954]", *SURE],
        ["greedy", "base", "0.0%", "100.0%", "0.0%", "\u2013", "\u2013", "0.000 [0.000, 0.490]", "\u2013"],
        ["greedy", "GRPO", "100.0%", "0.0%", "0.0%", "100.0%", "0.0%", "1.000 [0.510, 1.000]", "\u2013"],
    ]
    caption, second, *_ = repr(habits_table(models)).splitlines()
    assert caption.startswith("4 problems, samples of each: 4; false steps: ") and second.startswith(
        "decoding"
    )


SURE = ["1.000 [0.510, 1.000]"]  # four problems of four, by Wilson


def test_pass_at_k_is_of_one_k_and_of_no_model_with_fewer_samples(models):
    more = {**models, "two": evaluation(THOUGHT, DIRECT, THOUGHT), "one": evaluation(THOUGHT, THOUGHT)}
    header, *rows = cells(habits_table(more))
    assert header[-1] == "pass@2"
    assert [row[-1].partition(" ")[0] for row in rows[:4]] == ["0.500", "1.000", "1.000", "\u2013"]
    assert "samples of each: 4/2/1" in repr(habits_table(more))
    assert cells(habits_table({"one": more["one"]}))[0][-1] == "pass@1"


def test_names_cannot_become_part_of_the_page(models):
    view = habits_table({"<b>base": models["base"]})
    assert "&lt;b&gt;base" in view._repr_html_() and "<b>" not in view._repr_html_()


def bars(plot) -> dict[str, list[tuple[float, float, str]]]:
    """(start, width, colour) of each part of a bar, by model."""
    (axes,) = plot.figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    found: dict[str, list[tuple[float, float, str]]] = {name: [] for name in names}
    for part in axes.patches:
        name = names[round(part.get_y() + part.get_height() / 2)]
        found[name].append((part.get_x(), part.get_width(), to_hex(part.get_facecolor())))
    return found


@pytest.mark.parametrize("decoding", ["sampled", "greedy"])
def test_a_bar_is_made_of_the_shares(models, decoding):
    plot = plot_habits(models, decoding)
    (axes,) = plot.figure.axes
    (legend,) = plot.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(HABITS)
    colours = [to_hex(patch.get_facecolor()) for patch in legend.get_patches()]
    for name, parts in bars(plot).items():
        shares = [habits(models[name])[decoding][habit].share for habit in HABITS]
        assert [width for _, width, _ in parts] == shares
        assert [start for start, _, _ in parts] == [sum(shares[:at]) for at in range(len(shares))]
        assert [colour for _, _, colour in parts] == colours
    assert f"share of {decoding} completions (4 problems" in axes.get_xlabel()
    assert list(bars(plot)) == ["base", "GRPO"] and axes.yaxis_inverted()
    assert plot._repr_png_().startswith(b"\x89PNG")


def test_each_part_says_its_share_and_what_is_right(models):
    plot = plot_habits(models)
    texts = [text.get_text() for text in plot.figure.axes[0].texts]
    assert texts == [
        "25.0%\n100.0% right",
        "50.0%\n0.0% right",
        "25.0%\n0.0% right",
        "100.0%\n75.0% right",
    ]
    assert "base thinks 25.0% (100.0% right), answers directly 50.0% (0.0% right)" in repr(plot)
    assert "GRPO thinks 100.0% (75.0% right), answers directly 0.0%, not" in repr(plot)


@pytest.mark.parametrize("count", range(1, 13))
def test_texts_stay_within_their_part(count):
    """One sample in so many thinks: its part is drawn however narrow, with only what fits into it."""
    plot = plot_habits({"model": evaluation(DIRECT, THOUGHT, *[DIRECT] * count, SENTENCE)})
    plot.figure.draw_without_rendering()
    (axes,) = plot.figure.axes
    parts = [part.get_window_extent() for part in axes.patches]
    assert len(parts) == 3
    for text in axes.texts:
        box = text.get_window_extent()
        assert any(part.x0 <= box.x0 and box.x1 <= part.x1 for part in parts), text.get_text()


def test_what_cannot_be_shown_is_refused(models):
    for view in (habits_table, plot_habits):
        with pytest.raises(DataError, match="no evaluation to show"):
            view({})
        with pytest.raises(DataError, match="no evaluation of GRPO to show.*time limit"):
            view({**models, "GRPO": None})
    with pytest.raises(DataError, match="'sampled' or 'greedy', not 'beam'"):
        plot_habits(models, "beam")
