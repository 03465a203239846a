"""Delta debugging: what is left is needed, and the time limit holds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx
import pytest

from snn_optimizer.reduction.failures import Failure
from snn_optimizer.reduction.search import Search, TimeUpError

WRONG = Failure("values differ", "a-pass", "found")


@dataclass(frozen=True)
class Stub:
    """A candidate that is a list of numbers."""

    items: tuple[int, ...]
    model: onnx.ModelProto = field(default_factory=onnx.ModelProto)
    pipeline: tuple[str, ...] = ()

    def digest(self) -> bytes:
        return repr(self.items).encode()


def search(needed: set[int], size: int, **options) -> Search:
    return Search(
        Stub(tuple(range(size))), WRONG, lambda c: WRONG if needed <= set(c.items) else None, **options  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("needed", "size"), [({0}, 1), ({3}, 8), ({0, 99}, 100), ({7, 8, 50}, 100), (set(range(5)), 5), (set(), 33)]
)
def test_what_is_left_is_needed(needed: set[int], size: int, reverse: bool) -> None:
    one = search(needed, size)
    kept = one.thin(range(size), lambda items: Stub(tuple(items)), "items", reverse=reverse)  # type: ignore[arg-type, return-value]
    assert set(kept) == needed
    assert set(one.current.items) == needed  # type: ignore[attr-defined]
    assert one.tried <= 8 * (len(needed) + 1) * max(size, 2).bit_length()


def test_pieces_are_not_smaller_than_asked_for() -> None:
    sizes = []

    def build(items: Sequence[int]) -> Stub:
        sizes.append(64 - len(items))
        return Stub(tuple(items))

    search(set(range(64)), 64).thin(range(64), build, "items", finest=16)  # type: ignore[arg-type]
    assert set(sizes) == {64, 32, 16}


def test_the_same_candidate_is_judged_once() -> None:
    one = search({1}, 4)
    assert not one.attempt(Stub((0,)), "x")  # type: ignore[arg-type]
    assert not one.attempt(Stub((0,)), "x")  # type: ignore[arg-type]
    assert not one.attempt(Stub((0, 1, 2, 3)), "x")  # type: ignore[arg-type]
    assert one.tried == 1


def test_another_failure_does_not_count() -> None:
    one = search({1}, 4)
    for other in (Failure("values differ", "b-pass", ""), Failure("raises IndexError", "a-pass", "")):
        one.oracle = lambda _, other=other: other
        assert not one.attempt(Stub((1, len(other.culprit + other.kind))), "x")  # type: ignore[arg-type]


def test_a_candidate_that_cannot_be_built_is_passed_over() -> None:
    one = search({1}, 2)
    assert one.built(lambda items: Stub(tuple(items[5:6])) if items[5] else None, (1, 2)) is None  # type: ignore[arg-type, return-value]


def test_the_time_limit() -> None:
    one = search({1}, 4, end=time.perf_counter() - 1)
    with pytest.raises(TimeUpError):
        one.attempt(Stub((1,)), "x")  # type: ignore[arg-type]


def test_progress_is_told() -> None:
    told: list[str] = []
    one = search({1}, 4, tell=lambda progress: told.append(str(progress)))
    one.attempt(Stub((1,)), "items")  # type: ignore[arg-type]
    assert len(told) == 1
    assert told[0].startswith("items: 0 nodes (1 candidates, ")
