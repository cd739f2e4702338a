"""What is recorded of a module's experiments: looked up, and written down run by run."""

from dataclasses import dataclass, field
from pathlib import Path

from seeds.experiments import FILE, Experiment
from seeds.runs import Run, Settings
from seeds.tables import Row, Runs, read_runs, write_runs


@dataclass
class Book:
    """The records of a module.

    Attributes:
        experiments: all of the module's.
        settings: experiment -> variant -> settings, of those that are run now.
    """

    module: Path
    experiments: dict[str, Experiment]
    settings: dict[str, dict[str, Settings]]
    _runs: dict[str, Runs] = field(init=False)

    def __post_init__(self) -> None:
        self._runs = {name: read_runs(self.folder, name) for name in self.experiments}

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return (self.module / FILE).parent

    def find(self, run: Run) -> tuple[Row, list[Row]] | None:
        """A run's rows, if any experiment of the module has one with these settings and this seed."""
        for runs in self._runs.values():
            for (_, seed), found in runs.items():
                if (found[0].get("fingerprint"), seed) == run.key:
                    return found
        return None

    def stale(self, experiment: str) -> dict[str, list[int]]:
        """Variant -> seeds that were recorded with other settings than the variant has now, or of one that is gone."""
        found: dict[str, list[int]] = {}
        for (variant, seed), (row, _) in self._runs[experiment].items():
            now = self.settings[experiment].get(variant)
            if now is None or now.fingerprint != row.get("fingerprint"):
                found.setdefault(variant, []).append(seed)
        return found

    def write(self, run: Run, row: Row, curves: list[Row]) -> None:
        """Writes a run's rows down wherever they belong; there, the variant's rows with other settings go."""
        for experiment, variant in run.places:
            # Read again: another call of the command may have written meanwhile.
            runs = self._runs[experiment] = read_runs(self.folder, experiment)
            fingerprint = run.settings.fingerprint
            for key in [key for key in runs if key[0] == variant]:
                if runs[key][0].get("fingerprint") != fingerprint:
                    del runs[key]
            runs[variant, run.seed] = ({"fingerprint": fingerprint, **row}, curves)
            write_runs(self.folder, experiment, runs, self.experiments[experiment].variants)

    def share(self, run: Run) -> list[str]:
        """Copies a recorded run to the experiments that lack it; returns them."""
        found = self.find(run)
        lacking = [
            (experiment, variant)
            for experiment, variant in run.places
            if self._runs[experiment].get((variant, run.seed), ({}, []))[0].get("fingerprint") != run.key[0]
        ]
        if found is None or not lacking:
            return []
        self.write(Run(run.settings, run.seed, tuple(lacking)), *found)
        return [experiment for experiment, _ in lacking]
