"""NIR files on the command line."""

from __future__ import annotations

import json

import h5py
import nir
import numpy as np
import onnx
import pytest

from tests.support.nir_networks import chain, datasets, neuron, same, written


@pytest.fixture
def network(tmp_path):
    """A file of two layers; one of three hidden units never fires."""
    weight = np.array([[1.0, 0.6], [-1.0, -0.5], [0.4, 1.1]], np.float32)
    hidden = nir.LIF(
        tau=np.full(3, 5e-3), r=np.full(3, 5.0), v_leak=np.zeros(3), v_threshold=np.full(3, 0.8), v_reset=np.zeros(3)
    )
    out = nir.IF(r=np.ones(2), v_threshold=np.full(2, 0.9))
    return written(chain(nir.Linear(weight), hidden, nir.Linear(np.ones((2, 3), np.float32)), out), tmp_path)


def test_optimize_writes_nir(snnopt, network, tmp_path):
    code, out, err = snnopt("optimize", network, "-o", tmp_path / "small.nir", "--dt", "1e-3", "-q")
    assert (code, err) == (0, "")
    assert "net.nir  @O2" in out
    assert "1 neuron removed" in out or "1 neurons removed" in out
    assert "verdict  EQUIVALENT" in out
    assert "output values of the file, read back, equal to those of the network" in out
    found = nir.read(tmp_path / "small.nir")
    assert found.nodes["lif"].tau.shape == (2,)
    assert found.nodes["linear_1"].weight.shape == (2, 2)
    code, out, _ = snnopt("verify", network, tmp_path / "small.nir", "--dt", "1e-3", "--quick", "-q")
    assert code == 0
    assert "EQUIVALENT" in out


def test_optimize_writes_onnx(snnopt, network, tmp_path):
    code, _, _ = snnopt("optimize", network, "-o", tmp_path / "small.onnx", "--dt", "1e-3", "--emit", "step", "-q")
    assert code == 0
    model = onnx.load(tmp_path / "small.onnx")
    assert model.graph.input[0].name == "input"
    assert len(model.graph.input) == 3  # two states


def test_o0_changes_nothing(snnopt, network, tmp_path):
    code, _, _ = snnopt("optimize", network, "-o", tmp_path / "same.nir", "--dt", "1e-3", "-O0", "-q")
    assert code == 0
    assert same(datasets(network), datasets(tmp_path / "same.nir")) == []


def test_a_certificate_speaks_of_nir_files(snnopt, network, tmp_path):
    small, certificate = tmp_path / "small.nir", tmp_path / "c.json"
    time = ("--dt", "1e-3")
    assert snnopt("optimize", network, "-o", small, *time, "--certificate", certificate, "-q")[0] == 0
    code, out, _ = snnopt("check-certificate", network, small, certificate, *time)
    assert code == 0
    assert "HOLDS" in out
    code, out, _ = snnopt("check-certificate", network, network, certificate, *time)
    assert code == 1
    assert "REJECTED" in out
    code, out, _ = snnopt("check-certificate", network, small, certificate, "--dt", "2e-3")
    assert code == 1


def test_convert_there_and_back(snnopt, network, tmp_path):
    for form in ("sequence", "step", "scan"):
        model, back = tmp_path / f"{form}.onnx", tmp_path / f"{form}.nir"
        code, out, _ = snnopt("convert", network, model, "--dt", "1e-3", "--emit", form)
        assert code == 0
        assert "LIF 3 neurons" in out
        assert f"wrote    {model}" in out
        code, out, _ = snnopt("convert", model, back, "--dt", "1e-3")
        assert code == 0
        assert "equal to those of the network" in out
        found, before = nir.read(back), nir.read(network)
        assert {type(node).__name__ for node in found.nodes.values()} == {"Input", "Linear", "LIF", "IF", "Output"}
        lif = next(node for node in found.nodes.values() if isinstance(node, nir.LIF))
        np.testing.assert_allclose(lif.tau, before.nodes["lif"].tau, rtol=1e-6)
        np.testing.assert_allclose(lif.r, before.nodes["lif"].r, rtol=1e-6)
    code, out, _ = snnopt("convert", network, tmp_path / "again.nir", "--dt", "1e-3", "--json")
    assert code == 0
    assert json.loads(out)["values_changed"] == 0
    assert same(datasets(network), datasets(tmp_path / "again.nir")) == []


def test_the_scheme_changes_the_steps(snnopt, network):
    shown = [snnopt("info", network, "--dt", "1e-3", "--discretization", s)[1] for s in ("euler", "exponential")]
    assert "u = 0.8 v + " in shown[0]
    assert "u = 0.818731 v + " in shown[1]


def test_what_nir_cannot_say_is_refused_unless_named(snnopt, models, tmp_path):
    out = tmp_path / "net.nir"
    code, _, err = snnopt("convert", models / "digits_mlp.onnx", out, "--dt", "1e-3")
    assert code == 2
    assert "'lif1' (LIF) cannot be written to NIR: a spike takes the threshold off" in err
    assert "--allow-loss soft-reset" in err
    assert not out.exists()
    code, stdout, err = snnopt("convert", models / "digits_mlp.onnx", out, "--dt", "1e-3", "--allow-loss", "soft-reset")
    assert code == 0
    assert "warning: lost: soft-reset: neurons 'lif1'" in err
    assert "(losses and rounding)" in stdout
    assert nir.read(out).nodes["lif1"].tau.shape == (128,)


def test_profile_measures_nir(snnopt, network, tmp_path):
    x = (np.random.default_rng(0).random((20, 8, 2)) < 0.5).astype(np.float32)
    np.savez(tmp_path / "data.npz", input=x)
    profile = tmp_path / "p.npz"
    code, out, _ = snnopt(
        "profile", network, "--data", tmp_path / "data.npz", "-o", profile, "--dt", "1e-3", "--json", "-q"
    )
    assert code == 0
    assert [row["silent"] for row in json.loads(out)["populations"]] == [1, 0]
    code, out, _ = snnopt(
        "optimize", network, "-o", tmp_path / "small.nir", "--dt", "1e-3", "-O3", "--calib", tmp_path / "data.npz", "-q"
    )
    assert code == 0
    assert nir.read(tmp_path / "small.nir").nodes["lif"].tau.shape == (2,)


@pytest.mark.parametrize("name", ["quantize-weights", "prune{sparsity=0.5}", "snap-to-grid", "compress-units"])
def test_passes_that_change_weights(name, snnopt, network, tmp_path):
    x = (np.random.default_rng(0).random((20, 32, 2)) < 0.5).astype(np.float32)
    np.savez(tmp_path / "data.npz", input=x)
    code, out, err = snnopt(
        "optimize", network, "-o", tmp_path / "small.nir", "--dt", "1e-3", "-p", f"@O2,{name}", "-q",
        "--calib", tmp_path / "data.npz", "--max-spike-change", "0.9",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "read back, equal to those of the network" in out
    assert nir.read(tmp_path / "small.nir").nodes["lif"].tau.size <= 2


REFUSALS = [
    (["optimize", "NET", "-o", "out.nir"], "node 'lif' (LIF) has time constants: say how long a step is, --dt SECONDS"),
    (["optimize", "NET", "-o", "out.nir", "--dt", "0"], "--dt must be a number of seconds above 0"),
    (["optimize", "NET", "-o", "out.nir", "--dt", "1e-3", "--emit", "step"], "--emit has no effect here: a NIR file"),
    (["optimize", "NET", "-o", "out.onnx", "--dt", "1e-3", "--allow-loss", "x"], "--allow-loss has no effect here"),
    (["optimize", "NET", "-o", "out.nir", "--dt", "1e-3", "--states", "a=b"], "--states has no effect here"),
    (["optimize", "ONNX", "-o", "out.nir"], "is a NIR file and"),
    (["optimize", "ONNX", "-o", "out.onnx", "--dt", "1"], "--dt has no effect here: it is about NIR files"),
    (["info", "ONNX", "--dt", "1"], "--dt has no effect here: it is about NIR files"),
    (["convert", "NET", "out.txt", "--dt", "1e-3"], "'out.txt' must end in .onnx or .nir"),
    (["convert", "NET", "out.onnx"], "--dt SECONDS"),
    (["convert", "ONNX", "out.nir", "--dt", "1e-3", "--emit", "step"], "--emit has no effect here"),
    (["convert", "ONNX", "out.nir", "--dt", "1e-3", "--allow-loss", "x"], "--allow-loss 'x' is no known loss; known: "),
    (["convert", "none.nir", "out.onnx"], "'none.nir': No such file"),
    (["convert", "junk.nir", "out.onnx"], "'junk.nir': not a NIR file: it is not HDF5"),
    (["convert", "odd.nir", "out.onnx"], "node 'if' is a 'Hodgkin', which is not supported; known: Affine,"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSALS, ids=[" ".join(words) for words, _ in REFUSALS])
def test_bad_input_is_explained_in_one_line(arguments, message, snnopt, network, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk.nir").write_bytes(b"junk")
    odd = written(chain(neuron("IF", (2,))), tmp_path, "odd.nir")
    with h5py.File(odd, "r+") as file:
        del file["node/nodes/if/type"]
        file["node/nodes/if/type"] = "Hodgkin"
    before = sorted(path.name for path in tmp_path.iterdir())
    known = {"NET": network, "ONNX": models / "digits_mlp.onnx"}
    code, _, err = snnopt(*(known.get(word, word) for word in arguments))
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_nir_file_where_onnx_is_expected_is_recognized(snnopt, network, tmp_path):
    network.rename(tmp_path / "net.onnx")
    code, _, err = snnopt("info", tmp_path / "net.onnx")
    assert code == 2
    assert "a NIR (HDF5) file, not an ONNX model; make one of it: snnopt convert" in err
