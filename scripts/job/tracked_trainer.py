"""transformers' callbacks of MLflow and W&B, called in the trackers' threads (tracker_thread.py): the trainer waits for none."""

import copy
from types import ModuleType
from typing import Any

from transformers import Trainer, TrainerCallback

from job.tracker_thread import Tracker
from job.tracking import trackers

_CALLBACKS = {"MLflowCallback": "mlflow", "WandbCallback": "wandb"}


def track_in_background(trainer: Trainer) -> None:
    """Replaces the trainer's callbacks of the trackers that `start_tracking` opened; others stay."""
    for callback in list(trainer.callback_handler.callbacks):
        name = _CALLBACKS.get(type(callback).__name__)
        if name in trackers:
            trainer.remove_callback(callback)
            if name == "mlflow":
                callback._ml_flow = _Synchronous(callback._ml_flow)
            trainer.add_callback(_InBackground(callback, trackers[name]))


class _InBackground(TrainerCallback):
    """Has another callback called later, with the trainer's state as it was."""

    def __init__(self, callback: TrainerCallback, tracker: Tracker) -> None:
        self._callback, self._tracker = callback, tracker

    def _later(self, event: str, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state, control = copy.copy(state), copy.copy(control)
        self._tracker.send(
            lambda: getattr(self._callback, event)(args, state, control, **kwargs), state.global_step
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._later("on_train_begin", args, state, control, **kwargs)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        self._later("on_log", args, state, control, logs=dict(logs), **kwargs)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._later("on_save", args, state, control, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._later("on_train_end", args, state, control, **kwargs)


class _Synchronous:
    """MLflow as a version that cannot log in the background, which transformers (5.17) would use: errors stay unseen there,
    and the process waits for that thread at its end."""

    __version__ = "2.7.0"

    def __init__(self, mlflow: ModuleType) -> None:
        self._mlflow = mlflow

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mlflow, name)
