"""NIR files: what is refused, and how it is said."""

from __future__ import annotations

import subprocess
import sys

import h5py
import nir
import numpy as np
import pytest

from snn_optimizer.errors import ModelLoadError, UnsupportedModelError
from snn_optimizer.nir import load
from snn_optimizer.nir.document import read_file
from tests.support.nir_networks import chain, neuron, run, written


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelLoadError, match=r"none\.nir': No such file"):
        load(tmp_path / "none.nir")


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "the file is empty"), (b"onnx", "not a NIR file: it is not HDF5")]
)
def test_other_files(content, message, tmp_path):
    (tmp_path / "net.nir").write_bytes(content)
    with pytest.raises(ModelLoadError, match=message):
        load(tmp_path / "net.nir")


def test_a_file_that_is_cut_off(tmp_path):
    path = written(chain(neuron("IF", (50,))), tmp_path)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ModelLoadError, match="not a NIR file, or cut off"):
        load(path)


def test_hdf5_of_something_else(tmp_path):
    with h5py.File(tmp_path / "net.nir", "w") as file:
        file.create_dataset("x", data=1)
    with pytest.raises(ModelLoadError, match="an HDF5 file, but not of a NIR network"):
        load(tmp_path / "net.nir")


def test_a_file_that_its_exporter_left_unfinished(tmp_path):
    with h5py.File(tmp_path / "net.nir", "w") as file:
        file.create_group("node/nodes")
    with pytest.raises(ModelLoadError, match="not written to its end: its network has no type"):
        load(tmp_path / "net.nir")


def test_a_single_node(tmp_path):
    nir.write(tmp_path / "net.nir", neuron("IF", (2,)))
    with pytest.raises(UnsupportedModelError, match="a single node 'IF', not a network"):
        load(tmp_path / "net.nir")


def test_an_unknown_node_is_named(tmp_path):
    path = written(chain(neuron("IF", (2,))), tmp_path)
    with h5py.File(path, "r+") as file:
        del file["node/nodes/if/type"]
        file["node/nodes/if/type"] = "Izhikevich"
    with pytest.raises(
        UnsupportedModelError, match="node 'if' is a 'Izhikevich', which is not supported; known: Affine"
    ):
        load(path)


def test_a_parameter_that_is_not_there(tmp_path):
    path = written(chain(neuron("IF", (2,))), tmp_path)
    with h5py.File(path, "r+") as file:
        del file["node/nodes/if/r"]
    with pytest.raises(ModelLoadError, match=r"the nir package .* refuses it: .*'r'"):
        load(path)


def test_shapes_that_do_not_fit(tmp_path):
    graph = nir.NIRGraph(
        nodes={"input": nir.Input(np.array([3])), "if": neuron("IF", (2,)), "output": nir.Output(np.array([2]))},
        edges=[("input", "if"), ("if", "output")], type_check=False,
    )  # fmt: skip
    with pytest.raises(ModelLoadError, match=r"refuses it: .*type mismatch: input.output.*older files"):
        load(written(graph, tmp_path))


def test_edges_into_a_subgraph(tmp_path):
    inner = chain(neuron("IF", (2,)))
    graph = nir.NIRGraph(
        nodes={"input": nir.Input(np.array([2])), "sub": inner, "output": nir.Output(np.array([2]))},
        edges=[("input", "if"), ("sub", "output")], type_check=False,
    )  # fmt: skip
    with pytest.raises(ModelLoadError, match=r"'if' which does not exist.*let edges end at the subgraph"):
        load(written(graph, tmp_path))


def test_the_package_adds_inputs_and_outputs_that_are_not_there(tmp_path):
    graph = nir.NIRGraph(nodes={"if": neuron("IF", (2,))}, edges=[], type_check=False)
    network = load(written(graph, tmp_path))
    assert [node.kind for node in network.file.nodes.values()] == ["IF", "Input", "Output"]
    (found,) = run(network, np.ones((3, 1, 2), np.float32))
    assert found.any()


def test_an_empty_network(tmp_path):
    with h5py.File(tmp_path / "net.nir", "w") as file:
        file["node/type"] = "NIRGraph"
        file.create_group("node/nodes")
        file["node/edges"] = np.zeros((0, 2))
    with pytest.raises(UnsupportedModelError, match="a network needs an Input and an Output"):
        load(tmp_path / "net.nir")


def test_the_order_of_edges_in_the_file_does_not_matter(tmp_path):
    graph = chain(neuron("IF", (2,)), neuron("IF", (2,), 1))
    first = read_file(written(graph, tmp_path))
    graph.edges.reverse()
    second = read_file(written(graph, tmp_path))
    assert first.edges == second.edges


def test_without_the_package_it_is_said_what_to_install(tmp_path):
    path = written(chain(neuron("IF", (2,))), tmp_path)
    code = (
        f"import sys; sys.modules['nir'] = None\nfrom snn_optimizer.cli.main import main\nmain(['info', {str(path)!r}])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "NIR files need the 'nir' package: pip install 'snn-optimizer[nir]'" in found.stderr
    assert found.stderr.count("\n") == 1
