"""Sound jobs, one of each module, in folders of their own: a case spoils a copy of what it is about."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

from rl.preferences import read_pairs
from rl.tasks import make_splits, read_rows, write_splits
from workshop.folders import REPOSITORY, SCRIPTS
from workshop.session.staging import stage_source

from bad_inputs.cases import Case, Rows

MODULES = {folder.name[:2]: folder for folder in sorted(REPOSITORY.glob("[0-9][0-9]_*"))}
SPLITS, VALIDATION = {"train": 64, "test": 8}, 8
# What makes a job of the recipe smoke shorter still; in the words of the module's recipes.
SHORT: dict[str, dict[str, Any]] = {
    "05": {
        "trainer.total_training_steps": 1,
        "trainer.save_freq": 1,
        "job.report_to": [],
        "job.eval_samples": 1,
    }
}
SHORT_TRL: dict[str, Any] = {"max_steps": 1, "report_to": [], "eval_problems": 4, "eval_samples": 1}
NOT_READ = {  # of the above by these scripts, or too few for them to train on
    "train_reward_model.py": ("eval_problems", "eval_samples"),
    "pairs_sampled.py": ("max_steps", "report_to", "eval_problems", "eval_samples"),
}
RECIPES = {"train_reward_model.py": "reward_model", "train_distilled.py": "distilled"}


@dataclasses.dataclass
class Place:
    """A case's own folders, and the settings of its job."""

    source: Path
    channels: dict[str, Path]
    settings: dict[str, Any]  # hyperparameters; of module 05, verl's keys
    recipe: str


class Ground:
    """What all cases begin with, made once: data, pairs, staged sources."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = write_splits(make_splits("chain_sum", SPLITS), folder / "data")
        self.rows: Rows = [dict(row) for row in read_rows(self.data["train"])]
        pairs = [_pair(row) for row in self.rows]
        # None of another split: preflight would refuse each job for that.
        self.pairs = write_splits(
            {"train": pairs[:-VALIDATION], "validation": pairs[-VALIDATION:]}, folder / "pairs"
        )
        self.pair_rows: Rows = [dict(pair) for pair in read_pairs(self.pairs["train"])]
        self._sources: dict[str, Path] = {}
        self._count = 0

    def source(self, module: str) -> Path:
        """The module's staged source; not to be changed."""
        if module not in self._sources:
            self._sources[module] = stage_source(MODULES[module] / "scripts", build=self.folder)
        return self._sources[module]

    def place(self, case: Case) -> Place:
        """Folders for a case, with what is bad in them."""
        self._count += 1
        folder = self.folder / f"case-{self._count}"
        folder.mkdir()
        source = self.source(case.module)
        if case.files or case.source:
            source = Path(shutil.copytree(source, folder / "source", copy_function=os.link))
        for name, content in case.files.items():
            data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
            (source / name).write_bytes(data)
        if case.source:
            case.source(source)
        channels = self._channels(case)
        settings = {**self._short(case), **case.settings}
        for name, file in (("train", case.train), ("test", case.test)):
            if file:
                own = folder / name
                own.mkdir()
                (own / file[0]).write_bytes(file[1](self.pair_rows if case.module == "01" else self.rows))
                channels[name] = own
        if case.model:
            channels["model"] = Path(shutil.copytree(SCRIPTS / "assets" / "tiny", folder / "model"))
            case.model(channels["model"])
            settings["base_model"] = "channel:model"
        if spoil := case.request.get("place"):
            (folder / "train").mkdir()
            spoil(folder / "train" / "train.jsonl")
            channels["train"] = folder / "train"
        recipe = str(settings.pop("config", f"recipes/{RECIPES.get(case.script, 'smoke')}.yaml"))
        return Place(source, channels, settings, recipe)

    def _channels(self, case: Case) -> dict[str, Path]:
        if case.script == "pairs_sampled.py":
            return {"problems": self.data["train"]}
        if case.script == "train_reward_model.py":
            return {"train": self.data["train"]}
        if case.script == "train_distilled.py":
            return {**self.data, "teacher": SCRIPTS / "assets" / "tiny"}
        return {**self.data, **self.pairs} if case.module == "01" else dict(self.data)

    def _short(self, case: Case) -> dict[str, Any]:
        short = SHORT.get(case.module, SHORT_TRL)
        dropped = NOT_READ.get(case.script, ())
        return {key: value for key, value in short.items() if key not in dropped}


def _pair(row: Any) -> Any:
    """A pair with the right answer and another one."""
    wrong = str(int(row["answer"]) + 1)
    texts = {"chosen": row["answer"], "rejected": wrong}
    return {
        **row,
        **{
            side: [{"role": "assistant", "content": f"<think></think><answer>{text}</answer>"}]
            for side, text in texts.items()
        },
    }


def overrides(settings: dict[str, Any]) -> list[str]:
    """verl's keys as the notebook writes them."""
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()
    ]
