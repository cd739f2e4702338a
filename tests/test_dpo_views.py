"""01_dpo_trl, lesson/preference_views.py: what training did to each token of an answer."""

import pytest
from lesson.preference_views import plot_lengths, plot_token_changes
from matplotlib.colors import to_hex
from workshop.views.plots import BLUE, VERMILLION

BEFORE = {"tokens": ["<", "think", ">", "\n"], "log_probs": [-0.25, -1.0, -2.0, -0.5]}
AFTER = {**BEFORE, "log_probs": [-0.25, -0.5, -4.0, -0.5]}


def test_a_panel_for_each_run_shows_by_how_much_each_token_changed():
    plot = plot_token_changes(BEFORE, {"alone": AFTER, "nothing": BEFORE})
    first, second = plot.figure.axes
    assert [bar.get_height() for bar in first.patches] == [0.0, 0.5, -2.0, 0.0]
    assert [to_hex(bar.get_facecolor()).upper() for bar in first.patches[1:3]] == [BLUE, VERMILLION.upper()]
    assert [bar.get_height() for bar in second.patches] == [0.0] * 4
    assert [label.get_text() for label in second.get_xticklabels()] == ["<", "think", ">", "\\n"]
    assert first.get_title(loc="left") == "alone: -1.50 nats for the whole answer"


def test_its_words_say_which_tokens_changed_most():
    words = repr(plot_token_changes(BEFORE, {"alone": AFTER}))
    assert "An answer of 4 tokens" in words
    assert "-1.50 nats in all, most +0.50 at 'think' (token 2), least -2.00 at '>' (token 3)" in words


def test_another_answer_is_refused():
    with pytest.raises(ValueError, match="different answers"):
        plot_token_changes(BEFORE, {"alone": {**AFTER, "tokens": ["<", "answer", ">", "\n"]}})


def test_lengths_say_how_many_answers_would_be_cut():
    """30 answers of 1 to 30 tokens behind a prompt of 100: 29 of them, 95 % and no fewer, have up to 129."""
    pairs = [{"prompt_tokens": 100, "chosen_tokens": n, "rejected_tokens": 10} for n in range(30, 0, -1)]
    words = repr(plot_lengths(pairs, max_length=127))
    assert "chosen: 95 % have at most 129 tokens, 3 of 30 would be cut" in words
    assert "rejected: 95 % have at most 110 tokens, 0 of 30 would be cut" in words
    assert "chosen: 95 % have at most 119 tokens" in repr(
        plot_lengths(pairs[10:], max_length=127)
    )  # 19 of 20


@pytest.mark.parametrize("pairs", [[], [{"chosen": []}]])
def test_pairs_without_lengths_are_refused(pairs):
    with pytest.raises(ValueError, match="These pairs have no lengths"):
        plot_lengths(pairs, 128)
