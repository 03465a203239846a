"""The pass manager: pipeline text, presets, the guard, and the record of a run."""

from snn_optimizer.pipeline.records import PassResult, PassStatus

__all__ = ["PassResult", "PassStatus"]
