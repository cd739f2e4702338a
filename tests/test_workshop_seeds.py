"""Recorded runs as bands and tables: what is drawn is the mean and the range of what is in the files."""

import math
import re
from pathlib import Path

import pytest
from rl.tasks import DataError
from workshop.views.plots import Panel
from workshop.views.seeds import plot_seeds, read_recorded, seeds_table

RESULTS = """\
variant,seed,fingerprint,after/pass_at_1_sampled,train_seconds,steps,recorded,machine,torch
slow,1,f,0.9,100,3,2026-11-25,"Some CPU, 2 cores",2.13.0
slow,2,f,0.8,120,3,2026-11-26,"Some CPU, 2 cores",2.13.0
fast,1,g,0.5,90,3,2026-11-26,"Some CPU, 2 cores",2.13.0
fast,2,g,,90,3,2026-11-26,"Some CPU, 2 cores",2.13.0
pairs,1,h,,20,,2026-11-26,"Some CPU, 2 cores",
"""
CURVES = """\
variant,seed,step,reward,kl
slow,1,1,0.1,
slow,1,2,0.2,0.5
slow,2,1,0.3,
slow,2,2,0.6,0.7
fast,1,1,0.5,
fast,2,1,0.9,
gone,1,1,0.9,
"""
REWARD, KL = Panel("reward", "Reward", "mean reward"), Panel("kl", "KL", "nats")


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "rates.csv").write_text(RESULTS)
    (tmp_path / "rates-curves.csv").write_text(CURVES)
    return tmp_path


def drawn(axes) -> dict[str, list[float]]:
    return {line.get_label(): pytest.approx(list(line.get_ydata())) for line in axes.get_lines()}


def test_runs_are_read_as_histories(folder):
    recorded = read_recorded(folder, "rates")
    assert recorded.variants == ["slow", "fast", "pairs"]
    assert recorded.curves["slow"][1] == [{"step": 1, "reward": 0.1}, {"step": 2, "reward": 0.2, "kl": 0.5}]
    assert recorded.curves["pairs"] == {1: []}
    assert recorded.values("slow", "train_seconds") == [100, 120]
    assert recorded.values("fast", "after/pass_at_1_sampled") == [0.5]
    assert recorded.results[0]["torch"] == "2.13.0", "a version is no number"


def test_a_variant_is_its_mean_and_its_range(folder):
    plot = plot_seeds(read_recorded(folder, "rates"), [REWARD, KL])
    reward, kl = plot.figure.axes
    assert drawn(reward) == {"slow": [0.2, 0.4], "fast": [0.7]}
    band = reward.collections[0].get_paths()[0].vertices
    ends = {step: sorted({round(y, 3) for x, y in band if math.isclose(x, step)}) for step in (1, 2)}
    assert ends == {1: [0.1, 0.3], 2: [0.2, 0.6]}
    assert drawn(kl)["slow"] == [0.6] and list(kl.get_lines()[1].get_ydata()) == []
    assert "recorded: 2 seeds, 2026-11-25 to 2026-11-26, Some CPU, 2 cores" in repr(plot)
    label = plot.figure.get_supxlabel()
    assert "recorded: 2 seeds" in label and "moving means" not in label
    assert plot._repr_png_().startswith(b"\x89PNG")


def test_a_live_run_is_drawn_on_top_in_its_variants_colour(folder):
    live = {"fast": [{"step": 1, "reward": 0.6}, {"step": 2, "reward": 0.7}]}
    (axes,) = plot_seeds(read_recorded(folder, "rates"), [REWARD], live).figure.axes
    assert drawn(axes) == {"slow": [0.2, 0.4], "fast": [0.7], "fast, live": [0.6, 0.7]}
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines["fast, live"].get_color() == lines["fast"].get_color() != lines["slow"].get_color()
    assert lines["fast, live"].get_linewidth() > lines["fast"].get_linewidth()
    assert lines["fast, live"].get_zorder() > lines["slow"].get_zorder()


def test_long_runs_are_averaged_over_a_tenth_of_their_steps(tmp_path):
    rows = "".join(f"slow,1,{step},{step % 2}\n" for step in range(1, 31))
    (tmp_path / "rates.csv").write_text("variant,seed,fingerprint\nslow,1,f\n")
    (tmp_path / "rates-curves.csv").write_text("variant,seed,step,reward\n" + rows)
    plot = plot_seeds(read_recorded(tmp_path, "rates"), [REWARD])
    (axes,) = plot.figure.axes
    assert set(axes.get_lines()[0].get_ydata()[2:]) == {1 / 3, 2 / 3}
    assert "moving means" in plot.figure.get_supxlabel()


def test_a_short_live_run_is_averaged_as_the_band_under_it(tmp_path):
    rows = "".join(f"slow,1,{step},{step % 2}\n" for step in range(1, 31))
    (tmp_path / "rates.csv").write_text("variant,seed,fingerprint\nslow,1,f\n")
    (tmp_path / "rates-curves.csv").write_text("variant,seed,step,reward\n" + rows)
    live = {"slow": [{"step": step, "reward": step % 2} for step in (1, 2, 3)]}
    plot = plot_seeds(read_recorded(tmp_path, "rates"), [REWARD], live)
    (axes,) = plot.figure.axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["slow, live"] == lines["slow"][:3]
    assert "bold: live" in plot.figure.get_supxlabel()


def test_some_variants_and_those_that_run_live(folder):
    recorded = read_recorded(folder, "rates")
    (axes,) = plot_seeds(recorded, [REWARD], variants=["fast"]).figure.axes
    assert list(drawn(axes)) == ["fast"]
    history = [{"step": 1, "reward": 1.0}]
    (axes,) = plot_seeds(recorded, [REWARD], {"slow": history}, variants=["fast"]).figure.axes
    assert list(drawn(axes)) == ["fast", "slow", "slow, live"]


def test_variants_beyond_the_palette_are_told_apart(tmp_path):
    names = [f"v{number}" for number in range(8)]
    (tmp_path / "many.csv").write_text("variant,seed\n" + "".join(f"{name},1\n" for name in names))
    rows = "".join(f"{name},1,1,0.5\n" for name in names)
    (tmp_path / "many-curves.csv").write_text("variant,seed,step,reward\n" + rows)
    (axes,) = plot_seeds(read_recorded(tmp_path, "many"), [REWARD]).figure.axes
    looks = [(line.get_color(), str(line.get_linestyle())) for line in axes.get_lines()]
    assert len(set(looks)) == 8


def test_what_there_is_not_is_said(folder):
    recorded = read_recorded(folder, "rates")
    for call, message in [
        (
            lambda: plot_seeds(recorded, [REWARD], {"fsat": []}),
            "rates: unknown variant 'fsat'; did you mean 'fast'?",
        ),
        (lambda: plot_seeds(recorded, [REWARD], variants=["x"]), "unknown variant 'x'"),
        (lambda: plot_seeds(recorded, [Panel("loss", "Loss", "")]), "nothing to plot"),
        (lambda: seeds_table(recorded, {"x": "after/pass_at_1"}), "did you mean 'after/pass_at_1_sampled'?"),
        (lambda: read_recorded(folder, "rtes"), "Recorded there: rates"),
    ]:
        with pytest.raises(DataError) as error:
            call()
        assert message in str(error.value)


@pytest.mark.parametrize(
    "text", ["variant,seed\nslow,one\n", "variant,seed,x\nslow,1,much\n", "a,b\n1,2,3\n", "a,b\n1,2\n"]
)
def test_a_damaged_file_is_refused(folder, text):
    (folder / "rates.csv").write_text(text)
    with pytest.raises(DataError, match="is no table of recorded runs"):
        read_recorded(folder, "rates")


def test_a_table_has_mean_and_range(folder):
    shown = seeds_table(
        read_recorded(folder, "rates"), {"pass@1": "after/pass_at_1_sampled", "s": "train_seconds"}
    )
    lines = repr(shown).splitlines()
    note = "recorded: 1 to 2 seeds, 2026-11-25 to 2026-11-26, Some CPU, 2 cores"
    assert lines[0] == f"mean (lowest to highest seed); {note}"
    assert [re.split(r"\s{2,}", line) for line in lines[2:4]] == [
        ["slow", "0.850 (0.800 to 0.900)", "110 (100 to 120)"],
        ["fast", "0.500", "90"],
    ]
    only = seeds_table(read_recorded(folder, "rates"), {"pass@1": "after/pass_at_1_sampled"})
    assert "pairs" not in repr(only) and "; recorded: 2 seeds" in only._repr_html_()
