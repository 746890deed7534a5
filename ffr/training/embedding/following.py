"""What happens at the end of a step of sentence-transformers' trainer: figures, checkpoint, stop."""

from __future__ import annotations

import math
import signal
import types
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ffr.errors import ModelError
from ffr.files import CHECKSUMS_FILE, differing_files, remove, write_checksums
from ffr.progress import Say
from ffr.run_log import METRICS_FILE, MetricsFile

COLUMNS = ("loss", "learning_rate", "grad_norm", "val_loss")
_PREFIX = "checkpoint-"


class Following(TrainerCallback):
    """Writes `metrics.csv`, checksums of checkpoints, and stops where it is asked to.

    The first SIGTERM or Ctrl-C lets the step end, writes a checkpoint and stops; a second Ctrl-C
    stops at once.

    Args:
        run: The run folder.
        last_step: The step that is gone on from; 0 for a new run.
        say: Takes the lines that a person should see.
    """

    def __init__(self, run: Path, last_step: int, say: Say) -> None:
        self._run = run
        self._last_step = last_step
        self._say = say
        self._metrics: MetricsFile | None = None
        self._row: dict[str, float] = {}
        self._stop_asked = False
        self._handlers: dict[int, Any] = {}
        self.was_interrupted = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._metrics = MetricsFile(self._run / METRICS_FILE, COLUMNS, last_step=self._last_step)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._ask_to_stop)

    def _ask_to_stop(self, number: int, frame: types.FrameType | None) -> None:
        if self._stop_asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._stop_asked = True
        self._say("stopping after this step; its checkpoint is written first")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The last step is validated and saved too."""
        is_last = state.global_step >= state.max_steps
        if is_last:
            control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"
        elif self._stop_asked:
            control.should_save = control.should_training_stop = True
            self.was_interrupted = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """A row is whole once its validation, if any is due, has come.

        Raises:
            ModelError: where the loss is no finite number.
        """
        names = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm"}
        names["eval_loss"] = "val_loss"
        found = {names[name]: float(value) for name, value in logs.items() if name in names}
        if not found or self._metrics is None:
            return
        self._row |= found
        if "val_loss" in found or not control.should_evaluate:
            step, row = int(state.global_step), self._row
            self._row = {}
            self._metrics.append(step, row)
            words = "  ".join(
                f"{name} {row[name]:.4g}" for name in ("loss", "val_loss") if name in row
            )
            if "val_loss" in row or step % max(1, state.max_steps // 20) == 0:
                self._say(f"step {step}/{state.max_steps}  {words}")
        if not math.isfinite(found.get("loss", 0.0)):
            raise ModelError(
                f"step {state.global_step}: the loss is not finite, so the run stops; start a new "
                "run with a lower learning_rate"
            )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Only what has checksums is gone on from: the trainer writes its files one by one."""
        folder = Path(args.output_dir) / f"{_PREFIX}{state.global_step}"
        names = [
            str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()
        ]
        write_checksums(folder, names)

    def restore_handlers(self) -> None:
        """Gives the signals back to who had them."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def newest_checkpoint(folder: Path, say: Say) -> tuple[Path | None, int]:
    """The newest whole checkpoint of a run and its step; torn ones are passed over and deleted.

    Args:
        folder: The run's `checkpoints/`.
        say: Is told which are torn.
    """
    steps = {
        int(path.name.removeprefix(_PREFIX)): path
        for path in folder.glob(f"{_PREFIX}*")
        if path.name.removeprefix(_PREFIX).isdigit()
    }
    for step in sorted(steps, reverse=True):
        path = steps[step]
        if (path / CHECKSUMS_FILE).is_file() and not differing_files(path):
            return path, step
        say(f"{path} is not as it was written (torn or changed): passed over")
        remove(path)
    return None, 0
