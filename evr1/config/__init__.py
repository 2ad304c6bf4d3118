"""A run's settings: every field in `base.py`, frozen dataclasses of them, checks, derivation."""

from evr1.config.resolve import changes, resolve
from evr1.config.settings import (
    CheckpointSettings,
    EvalSettings,
    LogSettings,
    LoraSettings,
    MeshSettings,
    OptimSettings,
    RolloutSettings,
    Settings,
    TrainSettings,
)
from evr1.config.settings_algorithm import (
    AlgorithmSettings,
    CriticSettings,
    DynamicSettings,
    MixSettings,
    ReplaySettings,
)
from evr1.config.settings_data import DataSettings, ShapeSettings
from evr1.config.settings_rewards import JudgeSettings, RewardSettings

__all__ = [
    "AlgorithmSettings",
    "CheckpointSettings",
    "CriticSettings",
    "DataSettings",
    "DynamicSettings",
    "EvalSettings",
    "JudgeSettings",
    "LogSettings",
    "LoraSettings",
    "MeshSettings",
    "MixSettings",
    "OptimSettings",
    "ReplaySettings",
    "RewardSettings",
    "RolloutSettings",
    "Settings",
    "ShapeSettings",
    "TrainSettings",
    "changes",
    "resolve",
]
