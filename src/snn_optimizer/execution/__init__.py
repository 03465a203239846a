"""Running a model and watching it run; the only user of onnxruntime."""

from __future__ import annotations

from snn_optimizer.execution.data import Dataset, load_dataset
from snn_optimizer.execution.instrument import Exposed, Tap, instrument
from snn_optimizer.execution.observe import Observation, Observer
from snn_optimizer.execution.ort import Port, Session
from snn_optimizer.execution.profile import PopulationProfile, Profile, profile_model
from snn_optimizer.execution.recording import Recorder
from snn_optimizer.execution.source import ModelSource, model_digest

__all__ = [
    "Dataset",
    "Exposed",
    "ModelSource",
    "Observation",
    "Observer",
    "PopulationProfile",
    "Port",
    "Profile",
    "Recorder",
    "Session",
    "Tap",
    "instrument",
    "load_dataset",
    "model_digest",
    "profile_model",
]
