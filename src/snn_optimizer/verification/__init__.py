"""Whether two models do the same: stimuli, comparison, verdicts, decisions."""

from __future__ import annotations

from snn_optimizer.verification.accuracy import (
    Scores,
    accuracy,
    decision_agreement,
    decision_output,
    decisions,
    predict,
    score,
    spike_change,
)
from snn_optimizer.verification.compare import Comparison, Difference, Level, compare_outputs
from snn_optimizer.verification.equivalence import Referee, verify
from snn_optimizer.verification.examination import Examination, examine
from snn_optimizer.verification.interface import interface_difference
from snn_optimizer.verification.mixing import mixed
from snn_optimizer.verification.seekers import seek_thresholds
from snn_optimizer.verification.stimuli import Ranges, Stimulus, generate
from snn_optimizer.verification.verdict import CaseResult, Equivalence, Verdict

__all__ = [
    "CaseResult",
    "Comparison",
    "Difference",
    "Equivalence",
    "Examination",
    "Level",
    "Ranges",
    "Referee",
    "Scores",
    "Stimulus",
    "Verdict",
    "accuracy",
    "compare_outputs",
    "decision_agreement",
    "decision_output",
    "decisions",
    "examine",
    "generate",
    "interface_difference",
    "mixed",
    "predict",
    "score",
    "seek_thresholds",
    "spike_change",
    "verify",
]
