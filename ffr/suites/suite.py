"""Suites of `ffr bench run`: models × settings × data sets in a YAML file, checked whole before anything is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ffr.errors import UsageError
from ffr.evaluation.figures import FIGURE_NAMES
from ffr.evaluation.scoring import SLICES
from ffr.retrieval.opening import SETTINGS_WITHOUT_EFFECT, choose_model, kind_of
from ffr.settings import AnswerConfig, checked_setting, nearest
from ffr.suites import packaged_suites, suite_text

WHOLE = "all"
"""Stands for the whole data among the slices of a suite."""

MAX_BYTES = 1 << 20
MAX_CELLS = 10_000
_MAX_LABEL = 120
_KEY_ENDING = "_API_KEY"

_SUITE_KEYS = ("title", "seed", "figures", "slices", "defaults", "settings", "datasets", "models")
_MODEL_KEYS = ("label", "model", "group", "settings", "reported")
_SETTING_KEYS = ("label",)
_DATASET_KEYS = ("label", "dataset", "split", "image_root", "limit", "skip_bad", "settings")


@dataclass(frozen=True)
class SuiteModel:
    """One model of a suite, or figures that others report.

    Args:
        label: What the table calls it.
        model: What `ffr eval --model` takes; None where figures are reported.
        group: The part of the table it stands in; may be empty.
        settings: Its own settings.
        reported: Data set's label → figure → its value as a share.
    """

    label: str
    model: str | None
    group: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    reported: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteSetting:
    """One way in which every model is asked; the label is empty where a suite has but one."""

    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteDataset:
    """One data set of a suite.

    Args:
        label: What the table calls it.
        dataset: A named set or a file.
        split: Part of a named set.
        image_root: Folder that image paths are relative to.
        limit: The first so many queries only.
        skip_bad: Leave bad records out, counted.
        settings: Settings for every model on this data.
    """

    label: str
    dataset: str
    split: str = "val"
    image_root: str | None = None
    limit: int | None = None
    skip_bad: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteRow:
    """A model, asked in one way."""

    model: SuiteModel
    setting: SuiteSetting

    @property
    def label(self) -> str:
        return f"{self.model.label}, {self.setting.label}" if self.setting.label else self.model.label


@dataclass(frozen=True)
class Suite:
    """A table to be measured.

    Args:
        name: Its file's name without the ending, or what `ffr bench list` calls it.
        text: The file.
        title: What stands above the table.
        seed: Seed of whatever is drawn.
        figures: Figures of the table, as `results.json` names them.
        slices: `all`, or tables of `ffr.evaluation.scoring.SLICES`.
        defaults: Settings for everything.
        rows: The rows of the table.
        datasets: The data sets.
        notes: Rows that are not made since their setting changes nothing for the model.
    """

    name: str
    text: str
    title: str
    seed: int
    figures: tuple[str, ...]
    slices: tuple[str, ...]
    defaults: Mapping[str, Any]
    rows: tuple[SuiteRow, ...]
    datasets: tuple[SuiteDataset, ...]
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    def settings_of(self, row: SuiteRow, dataset: SuiteDataset) -> AnswerConfig:
        """How the row's model is asked on the data; what has no effect on its kind is left out.

        The suite's defaults give way to those of the data set, these to the model's, these to the setting's.
        """
        assert row.model.model is not None
        merged = {**self.defaults, **dataset.settings, **row.model.settings, **row.setting.settings}
        without = SETTINGS_WITHOUT_EFFECT[kind_of(row.model.model)]
        return AnswerConfig(**{name: value for name, value in merged.items() if name not in without})

    def limited_to(self, num_queries: int) -> Suite:
        """The suite with the first queries of each data set only."""
        datasets = (replace(item, limit=min(num_queries, item.limit or num_queries)) for item in self.datasets)
        return replace(self, datasets=tuple(datasets))

    def rows_of(self, labels: Iterable[str]) -> tuple[SuiteRow, ...]:
        """The rows of these models, or of these rows; all for no label.

        Raises:
            UsageError: for a label that the suite does not have.
        """
        wanted = set(labels)
        known = dict.fromkeys(name for row in self.rows for name in (row.model.label, row.label))
        for label in wanted:
            if label not in known:
                raise UsageError(f"--only {label}: the suite {self.name} has no such row{nearest(label, known)}")
        return tuple(row for row in self.rows if not wanted or wanted & {row.model.label, row.label})


def load_suite(source: str) -> Suite:
    """Reads a suite that comes with ffr, by name, or one from a file.

    Raises:
        UsageError: where there is none, or something in it is wrong; the file and the line are named.
    """
    known = packaged_suites()
    if source in known:
        return read_suite(suite_text(source), name=source, where=source)
    path = Path(source)
    if not path.is_file():
        raise UsageError(f"{source}: neither a suite ({', '.join(known)}) nor a file{nearest(source, known)}")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{source}: cannot be read ({error})") from None
    if len(content) > MAX_BYTES:
        raise UsageError(f"{source}: is larger than {MAX_BYTES >> 20} MiB, which is no suite; name another file")
    return read_suite(text, name=path.name.removesuffix(".yaml").removesuffix(".yml"), where=source)


def read_suite(text: str, *, name: str, where: str) -> Suite:
    """Reads the text of a suite.

    Args:
        text: The YAML.
        name: What the suite is called.
        where: What stands before the line in errors.

    Raises:
        UsageError: where something in it is wrong.
    """
    reader = _Reader(where)
    root = reader.parse(text)
    parts = reader.mapping(root, "a suite", _SUITE_KEYS)
    for key in ("figures", "datasets", "models"):
        if key not in parts:
            reader.fail(root, f"a suite needs `{key}`")
    defaults = reader.settings(parts["defaults"]) if "defaults" in parts else {}
    figures = reader.names(parts["figures"], "figures", FIGURE_NAMES)
    slices = reader.names(parts["slices"], "slices", (WHOLE, *SLICES)) if "slices" in parts else (WHOLE,)
    seed = reader.whole(parts["seed"], "seed", low=0) if "seed" in parts else 0
    datasets = reader.datasets(parts["datasets"])
    settings = reader.variants(parts["settings"]) if "settings" in parts else (SuiteSetting(""),)
    models = reader.models(parts["models"], datasets, figures)
    rows, notes = reader.rows(parts["models"], models, settings)
    if len(rows) * len(datasets) > MAX_CELLS:
        reader.fail(root, f"{len(rows)} rows on {len(datasets)} data sets are more than {MAX_CELLS:,} cells; split it")
    title = reader.text(parts["title"], "title", most=500) if "title" in parts else name
    suite = Suite(name, text, title, seed, figures, slices, defaults, rows, datasets, notes)
    for row in rows:
        for dataset in datasets:
            if row.model.model is None:
                continue
            try:
                suite.settings_of(row, dataset)
            except UsageError as error:
                reader.fail(parts["models"], f"{row.label} on {dataset.label}: {error}")
    return suite


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which can blow a small file up without bound."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias (*name) is not taken; write it out", mark)
        return super().compose_node(parent, index)


class _Reader:
    """Reads the nodes of a suite's file, so that every error names its line.

    Args:
        where: What stands before the line.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._constructor = yaml.constructor.SafeConstructor()

    def parse(self, text: str) -> yaml.Node:
        try:
            node = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{self._where}:{mark.line + 1}" if mark is not None else self._where
            raise UsageError(f"{place}: not YAML ({_line(error.problem or error.context or 'damaged')})") from None
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise UsageError(f"{self._where}: not YAML ({_line(str(error))})") from None
        if node is None:
            raise UsageError(f"{self._where}: is empty; `ffr bench show sample` prints a suite to begin with")
        return node

    def fail(self, node: yaml.Node, message: str) -> NoReturn:
        raise UsageError(f"{self._where}:{node.start_mark.line + 1}: {message}")

    def mapping(self, node: yaml.Node, what: str, known: Iterable[str] | None) -> dict[str, yaml.Node]:
        """The values of a mapping by their keys; `known` None takes any key."""
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, f"{what} is written as `key: value` lines")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.fail(key, f"a key of {what} is no text")
            name = _line(key.value)
            if known is not None and name not in known:
                self.fail(key, f"{what} has no key `{name}`{nearest(name, known)}")
            if name in found:
                self.fail(key, f"`{name}` is given twice; give it once")
            found[name] = value
        return found

    def items(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        """The items of a list that is not empty."""
        if not isinstance(node, yaml.SequenceNode):
            self.fail(node, f"`{what}` is a list; write one `- …` for each")
        if not node.value:
            self.fail(node, f"`{what}` is empty; name at least one")
        if len(node.value) > MAX_CELLS:
            self.fail(node, f"`{what}` has more than {MAX_CELLS:,} entries; split the suite")
        return list(node.value)

    def value(self, node: yaml.Node, what: str) -> Any:
        """A single value, as YAML reads it."""
        if not isinstance(node, yaml.ScalarNode):
            self.fail(node, f"`{what}` takes one value, no list and no mapping")
        try:
            return self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            reason = getattr(error, "problem", None) or str(error)
            self.fail(node, f"`{what}` cannot be read ({_line(str(reason))})")

    def text(self, node: yaml.Node, what: str, *, most: int = _MAX_LABEL) -> str:
        value = self.value(node, what)
        if not isinstance(value, str):
            self.fail(node, f"`{what}` is {_line(str(value))}, not a text; put it into quotes")
        value = value.strip()
        if not value or not value.isprintable() or len(value) > most:
            self.fail(node, f"`{what}` must be one line of 1 to {most} characters that can be printed")
        return value

    def whole(self, node: yaml.Node, what: str, *, low: int) -> int:
        value = self.value(node, what)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**32:
            self.fail(node, f"`{what}` is {_line(str(value))}, not a whole number from {low} to {2**32 - 1}")
        return value

    def names(self, node: yaml.Node, what: str, known: Iterable[str]) -> tuple[str, ...]:
        """A list of names that must exist, each once."""
        found: list[str] = []
        for item in self.items(node, what):
            name = self.text(item, what)
            if name not in known:
                self.fail(item, f"`{what}`: there is no {name}{nearest(name, known)}")
            if name in found:
                self.fail(item, f"`{what}`: {name} is given twice; give it once")
            found.append(name)
        return tuple(found)

    def settings(self, node: yaml.Node, *, beside: tuple[str, ...] = ()) -> dict[str, Any]:
        """Settings of `AnswerConfig`; keys in `beside` are passed over."""
        names = [item.name for item in fields(AnswerConfig)]
        found: dict[str, Any] = {}
        for name, value in self.mapping(node, "`settings`", None).items():
            if name in beside:
                continue
            if name == "trust_remote_code":
                self.fail(value, "a suite does not decide on trust; pass --trust-remote-code on the command line")
            if name not in names:
                self.fail(value, f"there is no setting {name}{nearest(name, [*names, *beside])}")
            plain = self.value(value, name)
            try:
                found[name] = checked_setting(AnswerConfig, name, plain)
            except UsageError as error:
                self.fail(value, _line(str(error)))
            if name == "api_key_env" and found[name] is not None and not found[name].endswith(_KEY_ENDING):
                self.fail(
                    value,
                    f"`api_key_env` names a variable that ends in {_KEY_ENDING}, so that no other secret goes out",
                )
        return found

    def label(self, node: yaml.Node, what: str, taken: list[str]) -> str:
        """A label that no other has; letter case does not tell two apart, since folders are named after them."""
        label = self.text(node, "label")
        if label.casefold() in taken:
            self.fail(node, f"two {what} have the label {label}; give each its own")
        taken.append(label.casefold())
        return label

    def datasets(self, node: yaml.Node) -> tuple[SuiteDataset, ...]:
        found, taken = [], list[str]()
        for item in self.items(node, "datasets"):
            parts = self.mapping(item, "a data set", _DATASET_KEYS)
            if "dataset" not in parts:
                self.fail(item, "a data set needs `dataset`: a named set or a file")
            skip_bad = self.value(parts["skip_bad"], "skip_bad") if "skip_bad" in parts else False
            if not isinstance(skip_bad, bool):
                self.fail(parts["skip_bad"], "`skip_bad` is neither true nor false")
            found.append(
                SuiteDataset(
                    label=self.label(parts.get("label", parts["dataset"]), "data sets", taken),
                    dataset=self.text(parts["dataset"], "dataset", most=4096),
                    split=self.text(parts["split"], "split") if "split" in parts else "val",
                    image_root=self.text(parts["image_root"], "image_root", most=4096)
                    if "image_root" in parts
                    else None,
                    limit=self.whole(parts["limit"], "limit", low=1) if "limit" in parts else None,
                    skip_bad=skip_bad,
                    settings=self.settings(parts["settings"]) if "settings" in parts else {},
                )
            )
        return tuple(found)

    def variants(self, node: yaml.Node) -> tuple[SuiteSetting, ...]:
        found, taken = [], list[str]()
        for item in self.items(node, "settings"):
            parts = self.mapping(item, "a setting", None)
            if "label" not in parts:
                self.fail(item, "each of `settings` needs a `label`")
            label = self.label(parts["label"], "settings", taken)
            found.append(SuiteSetting(label, self.settings(item, beside=_SETTING_KEYS)))
        return tuple(found)

    def models(
        self, node: yaml.Node, datasets: tuple[SuiteDataset, ...], figures: tuple[str, ...]
    ) -> tuple[SuiteModel, ...]:
        found, taken = [], list[str]()
        for item in self.items(node, "models"):
            parts = self.mapping(item, "a model", _MODEL_KEYS)
            if ("model" in parts) == ("reported" in parts):
                self.fail(
                    item, "a model has either `model` (what to measure) or `reported` (figures that others print)"
                )
            if "model" not in parts and ("label" not in parts or "settings" in parts):
                self.fail(item, "reported figures need a `label` and have no `settings`")
            model = self.text(parts["model"], "model", most=4096) if "model" in parts else None
            settings = self.settings(parts["settings"]) if "settings" in parts else {}
            if model is not None:
                self._check_model(parts["model"], model)
                without = SETTINGS_WITHOUT_EFFECT[kind_of(model)]
                for name in settings:
                    if name in without:
                        self.fail(parts["settings"], f"{name} has no effect on {model}; take it out")
            reported = self.reported(parts["reported"], datasets, figures) if "reported" in parts else {}
            found.append(
                SuiteModel(
                    label=self.label(parts.get("label", parts.get("model", item)), "models", taken),
                    model=model,
                    group=self.text(parts["group"], "group") if "group" in parts else "",
                    settings=settings,
                    reported=reported,
                )
            )
        return tuple(found)

    def _check_model(self, node: yaml.Node, model: str) -> None:
        """What can be wrong with a name whatever lies on this machine; a model that is not here is found out when its turn comes."""
        if kind_of(model) == "vlm":
            return
        try:
            choose_model(model)
        except UsageError as error:
            self.fail(node, str(error))

    def reported(
        self, node: yaml.Node, datasets: tuple[SuiteDataset, ...], figures: tuple[str, ...]
    ) -> dict[str, dict[str, float]]:
        """Data set's label → figure → share; the file has percents, as papers print them."""
        labels = [item.label for item in datasets]
        found: dict[str, dict[str, float]] = {}
        for label, values in self.mapping(node, "`reported`", labels).items():
            found[label] = {}
            for figure, value in self.mapping(values, f"`reported` of {label}", figures).items():
                percent = self.value(value, figure)
                if isinstance(percent, bool) or not isinstance(percent, int | float) or not -100 <= percent <= 100:
                    self.fail(value, f"`{figure}` is {_line(str(percent))}, not a number of percent")
                found[label][figure] = round(percent / 100, 12)
        return found

    def rows(
        self, node: yaml.Node, models: tuple[SuiteModel, ...], settings: tuple[SuiteSetting, ...]
    ) -> tuple[tuple[SuiteRow, ...], tuple[str, ...]]:
        rows: list[SuiteRow] = []
        skipped: dict[tuple[str, str], list[str]] = {}
        for model in models:
            if model.model is None:
                rows.append(SuiteRow(model, SuiteSetting("")))
                continue
            without = SETTINGS_WITHOUT_EFFECT[kind_of(model.model)]
            own = [setting for setting in settings if not without.intersection(setting.settings)]
            for setting in settings:
                if setting not in own:
                    idle = ", ".join(sorted(without.intersection(setting.settings)))
                    skipped.setdefault((setting.label, idle), []).append(model.label)
            if not own:
                self.fail(
                    node, f"{model.label} gets no row, since every one of `settings` has something without effect on it"
                )
            # a model with one row needs no word on how it was asked
            rows += [SuiteRow(model, setting if len(own) > 1 else replace(setting, label="")) for setting in own]
        notes = tuple(
            f"No row “{label}” for {', '.join(labels)}: nothing changes with {idle}."
            for (label, idle), labels in skipped.items()
        )
        taken: set[str] = set()
        for row in rows:
            if row.label.casefold() in taken:
                self.fail(node, f"two rows would be called {row.label}; choose other labels")
            taken.add(row.label.casefold())
        return tuple(rows), notes


def _line(text: str) -> str:
    """One line of at most 120 characters that can be printed."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text[:1000]).split())
    return line if len(line) <= 120 else line[:119] + "…"
