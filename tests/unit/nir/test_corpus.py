"""The files published with the NIR paper: identity, every level, and the traces that come with them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from snn_optimizer import optimize
from snn_optimizer.errors import ModelLoadError
from snn_optimizer.nir import Discretization, export, load
from tests.support.nir_networks import datasets, run, same

ROOT = Path(__file__).resolve().parents[3]
FILES = (
    "01_lif_debug_spike_representation_two_lif_neurons",
    "01_lif_lif_norse",
    "02_cnn_cnn_sinabs",
    "03_rnn_braille_noDelay_bias_zero",
    "03_rnn_braille_noDelay_noBias_subtract",
)
REFUSED = (
    "01_lif_lif_rockpool",
    "03_rnn_extras_braille_noDelay_bias_zero_subgraph",
    "03_rnn_extras_braille_noDelay_noBias_subtract_subgraph",
)


@pytest.fixture(scope="module")
def published():
    """The folder of the files; tests skip where it is absent."""
    folder = Path(os.environ.get("SNN_NIR", ROOT.parent / "shared" / "nir"))
    if not folder.is_dir():
        pytest.skip(f"no NIR files at '{folder}'; set SNN_NIR")
    return folder


@pytest.mark.parametrize("scheme", ["euler", "exponential"])
@pytest.mark.parametrize("name", FILES)
def test_a_published_file_comes_back_bit_for_bit(name, scheme, published):
    path = published / f"{name}.nir"
    network = load(path, Discretization(1e-4, scheme))
    made = export(network.graph, network.time, network)
    assert same(datasets(path), datasets(made.data)) == []
    assert made.check.changed == 0 < made.check.compared


@pytest.mark.slow
@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
@pytest.mark.parametrize("name", FILES)
def test_a_published_file_is_optimized(name, level, published):
    network = load(published / f"{name}.nir", Discretization(1e-4))
    shape = [int(n) for n in network.graph.module.graph.inputs[0].shape[2:]]
    options = {}
    if level == "O3":
        options["calibration"] = {
            network.graph.module.graph.inputs[0].name: (np.random.default_rng(0).random((20, 16, *shape)) < 0.2).astype(
                np.float32
            )
        }
    smaller, report = optimize(network.graph, level=level, **options)
    silent = name.startswith("01_lif_debug")  # its second neuron never reaches its threshold of 20
    assert report.evidence.verdict == ("INCONCLUSIVE" if silent else "EQUIVALENT")
    if silent and level == "O3":
        return
    made = export(smaller, network.time, network)
    assert made.check.changed == 0 < made.check.compared
    if name.startswith("03") and "bias_zero" in name and level != "O1":
        assert smaller.total_neurons <= 18  # 27 of 38 hidden units provably never fire


def test_what_is_left_of_a_published_file_is_bit_for_bit_what_it_was(published):
    network = load(published / "03_rnn_braille_noDelay_bias_zero.nir", Discretization(1e-4))
    smaller, _ = optimize(network.graph, level="O2")
    made = export(smaller, network.time, network)
    left = smaller.unit_origins["lif1.lif"]
    before, after = network.file.content["nodes"], made.again.file.content["nodes"]
    assert set(before) == set(after)
    assert 0 < len(left) < 38
    for name, values in before["lif1.lif"].items():
        if name != "type":
            np.testing.assert_array_equal(after["lif1.lif"][name], values[left])
            assert after["lif1.lif"][name].dtype == values.dtype
    np.testing.assert_array_equal(after["fc1"]["weight"], before["fc1"]["weight"][left])
    np.testing.assert_array_equal(after["lif1.w_rec"]["weight"], before["lif1.w_rec"]["weight"][np.ix_(left, left)])
    np.testing.assert_array_equal(after["fc2"]["weight"], before["fc2"]["weight"][:, left])
    for name, values in before["lif2"].items():
        assert np.array_equal(after["lif2"][name], values)


@pytest.mark.parametrize("name", REFUSED)
def test_an_older_file_is_refused_in_one_line(name, published):
    with pytest.raises(ModelLoadError, match=r"the nir package .* refuses it: .*; older files may") as refusal:
        load(published / f"{name}.nir")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("scheme", ["euler", "exponential"])
@pytest.mark.parametrize("trace", ["norse", "exact"])
def test_the_published_traces(trace, scheme, published):
    """Spikes of Norse, and of the exact solution, over 1000 steps of 0.1 ms."""
    network = load(published / "01_lif_lif_norse.nir", Discretization(1e-4, scheme))
    rows = np.loadtxt(published / f"01_lif_trace_{trace}.csv", delimiter=",")
    (found,) = run(network, rows[:, 0].astype(np.float32).reshape(-1, 1, 1))
    assert rows[:, 2].sum() >= 4
    np.testing.assert_array_equal(found[:, 0, 0], rows[:, 2])
