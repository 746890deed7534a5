"""Loggers outside the run's folder, by the switch that TRL calls `report_to`: figures, and tables of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from ffr.errors import UsageError
from ffr.settings import StageConfig

DEFAULT_PROJECT = "ffr"


def outside_loggers(config: StageConfig, run: Path) -> list[Logger]:
    """The logger that `report_to` names, beside the run's own.

    Raises:
        UsageError: where its package is not installed.
    """
    project = config.report_project or DEFAULT_PROJECT
    try:
        if config.report_to == "wandb":
            from lightning.pytorch.loggers import WandbLogger

            return [WandbLogger(project=project, name=run.name, save_dir=str(run))]
        if config.report_to == "trackio":
            return [TrackioLogger(project, run.name, asdict(config))]
    except ModuleNotFoundError:
        raise UsageError(
            f"report_to={config.report_to}, but {config.report_to} is not installed; "
            f"pip install 'ffr-vlm[{config.report_to}]' or leave it out"
        ) from None
    return []


class TrackioLogger(Logger):
    """Figures and tables into trackio, which keeps them on this machine.

    Args:
        project: Its project there.
        run_name: The run's name; a run that is resumed goes on in the same.
        config: The settings.
    """

    def __init__(self, project: str, run_name: str, config: Mapping[str, Any]) -> None:
        super().__init__()
        import trackio

        self._trackio = trackio
        self._run_name = run_name
        trackio.init(
            project=project, name=run_name, config=dict(config), resume="allow", embed=False
        )

    @property
    def name(self) -> str:
        return "trackio"

    @property
    def version(self) -> str:
        return self._run_name

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._trackio.log(dict(metrics), step=step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the settings went with `init`."""

    def log_table(
        self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]], step: int
    ) -> None:
        """A table, as Lightning's `WandbLogger` takes one."""
        import pandas

        frame = pandas.DataFrame(list(data), columns=list(columns))
        self._trackio.log({key: self._trackio.Table(dataframe=frame)}, step=step)

    def finalize(self, status: str) -> None:
        self._trackio.finish()


def report_table(
    loggers: Sequence[Logger], key: str, rows: Sequence[Mapping[str, Any]], step: int
) -> None:
    """A table of rows, into each logger that takes one."""
    if not rows:
        return
    columns = list(rows[0])
    for logger in loggers:
        log_table = getattr(logger, "log_table", None)
        if log_table is not None:
            data = [[row[column] for column in columns] for row in rows]
            log_table(key, columns=columns, data=data, step=step)
