"""A group of completions as bars of their advantages."""

from collections.abc import Sequence

from workshop.views.plots import BLUE, INK, VERMILLION, Plot, clean, new_figure

TEXT = 60  # characters of a completion beside its bar


def plot_group(completions: Sequence[str], advantages: Sequence[float]) -> Plot:
    """One bar for each completion of a group: what becomes more probable in blue, what becomes less in orange."""
    figure = new_figure(9, 0.6 + 0.34 * len(completions))
    axes = figure.subplots()
    texts = [text.replace("\n", " ; ") for text in completions]
    texts = [text if len(text) <= TEXT else text[: TEXT - 3] + "..." for text in texts]
    axes.barh(
        range(len(texts)), advantages, color=[BLUE if value > 0 else VERMILLION for value in advantages]
    )
    axes.set_yticks(range(len(texts)), texts)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("advantage (standard deviations from the group's mean)", color=INK)
    clean(axes)
    bars = "; ".join(f"{value:+.2f} {text}" for value, text in zip(advantages, texts, strict=True))
    return Plot(figure, f"Advantages of {len(texts)} completions to one problem: {bars}")
