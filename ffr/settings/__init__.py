"""Settings of every stage and of asking a model, declared once each, and the files they come from.

Torch-free, so that the command line can list settings without loading a model.
"""

from ffr.settings.answers import (
    COHERENCE_ENCODER,
    AnswerConfig,
    ModelKind,
    kind_of,
    settings_of_data,
    without_effect,
)
from ffr.settings.declaration import (
    CONFIG,
    Declared,
    Settings,
    checked,
    declared,
    describe,
    setting,
)
from ffr.settings.grpo import NEWEST, GrpoConfig, check_of_reader
from ffr.settings.sources import (
    config_fingerprint,
    load_config,
    load_resumed,
    load_traced_config,
    named_model,
    recipes,
    resumed_fingerprint,
    to_yaml,
)
from ffr.settings.stages import (
    SCRATCH,
    EmbeddingConfig,
    ReaderConfig,
    SftConfig,
    StageConfig,
    VlmStageConfig,
)
from ffr.settings.words import closest, nearest

__all__ = [
    "COHERENCE_ENCODER",
    "CONFIG",
    "NEWEST",
    "SCRATCH",
    "AnswerConfig",
    "Declared",
    "EmbeddingConfig",
    "GrpoConfig",
    "ModelKind",
    "ReaderConfig",
    "Settings",
    "SftConfig",
    "StageConfig",
    "VlmStageConfig",
    "check_of_reader",
    "checked",
    "closest",
    "config_fingerprint",
    "declared",
    "describe",
    "kind_of",
    "load_config",
    "load_resumed",
    "load_traced_config",
    "named_model",
    "nearest",
    "recipes",
    "resumed_fingerprint",
    "setting",
    "settings_of_data",
    "to_yaml",
    "without_effect",
]
