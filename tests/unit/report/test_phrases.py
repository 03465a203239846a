"""What a pass did, in one phrase."""

from __future__ import annotations

import pytest

from snn_optimizer.report.model import PassResult, PassStatus, describe_result


@pytest.mark.parametrize(
    ("after", "phrase"), [((9, 2), "1 parameters less, 1 nodes less"), ((12, 5), "2 parameters more, 2 nodes more")]
)
def test_growth_is_called_more(after: tuple[int, int], phrase: str) -> None:
    result = PassResult(
        name="p", status=PassStatus.KEPT, params_before=10, params_after=after[0], nodes_before=3, nodes_after=after[1]
    )
    assert describe_result(result) == phrase
