"""Models of a git revision: as they were, with their weights; pointers and mistakes in one line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import pytest

from snn_optimizer.errors import InputError
from snn_optimizer.gate.pointers import read_pointer
from snn_optimizer.gate.revisions import Revision
from tests.support.gate_repository import commit, git
from tests.support.models import mlp


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "re pository"
    (folder / "deep").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main", ".")
    return folder


def pointer(data: bytes) -> bytes:
    digest = hashlib.sha256(data).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n".encode()


def test_a_model_and_its_external_weights_as_they_were(repository: Path, tmp_path: Path) -> None:
    path = repository / "deep" / "a [b].onnx"
    first = mlp((8, 300, 4), seed=1)
    expected = first.SerializeToString()
    onnx.save_model(first, path, save_as_external_data=True, location="net.bin", size_threshold=64)
    old = commit(repository)
    stored = {name: (repository / "deep" / name).read_bytes() for name in ("a [b].onnx", "net.bin")}
    onnx.save_model(mlp((8, 2, 4), seed=2), path)
    (repository / "deep" / "net.bin").unlink()
    commit(repository)
    (tmp_path / "out").mkdir()
    found = Revision.find("HEAD~1", repository).extract_model(path, tmp_path / "out")
    assert Revision.find("HEAD~1", repository).commit == old
    assert found is not None
    assert {one.name: one.read_bytes() for one in found.parent.iterdir()} == stored
    loaded = onnx.load(found)
    for tensor in loaded.graph.initializer:
        del tensor.external_data[:]
        tensor.ClearField("data_location")
    assert {t.name: t.raw_data for t in loaded.graph.initializer} == {
        t.name: t.raw_data for t in onnx.ModelProto.FromString(expected).graph.initializer
    }


def test_within_a_hook(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = repository / "deep" / "net.onnx"
    path.write_bytes(mlp().SerializeToString())
    commit(repository)
    monkeypatch.setenv("GIT_DIR", ".git")  # as git sets it for its hooks
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/index")
    assert Revision.find("main", repository).extract_model(path, tmp_path) is not None


def test_a_model_that_is_not_there(repository: Path, tmp_path: Path) -> None:
    (repository / "readme").write_text("x")
    commit(repository)
    (repository / "deep" / "net.onnx").write_bytes(mlp().SerializeToString())
    assert Revision.find("main", repository).extract_model(repository / "deep" / "net.onnx", tmp_path) is None


def test_pointers_are_followed_where_their_file_was_fetched(repository: Path, tmp_path: Path) -> None:
    data = mlp().SerializeToString()
    path = repository / "net.onnx"
    path.write_bytes(pointer(data))
    commit(repository)
    revision = Revision.find("main", repository)
    with pytest.raises(InputError, match=r"Git LFS pointer to .* fetch them with: git lfs fetch origin") as caught:
        revision.extract_model(path, tmp_path)
    assert "\n" not in str(caught.value)
    digest = hashlib.sha256(data).hexdigest()
    held = repository / ".git" / "lfs" / "objects" / digest[:2] / digest[2:4] / digest
    held.parent.mkdir(parents=True)
    held.write_bytes(data)
    found = revision.extract_model(path, tmp_path)
    assert found is not None
    assert found.read_bytes() == data


def test_what_is_no_pointer() -> None:
    data = pointer(b"x")
    assert read_pointer(data) is not None
    assert read_pointer(data + b" " * 2000) is None
    assert read_pointer(data.replace(b"sha256", b"md5")) is None
    assert read_pointer(mlp().SerializeToString()) is None


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "C:/x", "a/../../secret"])
def test_weights_outside_the_folder_are_refused(repository: Path, tmp_path: Path, location: str) -> None:
    model = mlp((8, 300, 4))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (repository / "deep" / "net.onnx").write_bytes(model.SerializeToString())
    (repository / "secret").write_bytes(b"secret")
    commit(repository)
    with pytest.raises(InputError, match="leaves the model's folder"):
        Revision.find("main", repository).extract_model(repository / "deep" / "net.onnx", tmp_path)


def test_links_and_folders_are_refused(repository: Path, tmp_path: Path) -> None:
    (repository / "net.onnx").symlink_to("elsewhere.onnx")
    (repository / "deep" / "x").write_text("x")
    commit(repository)
    revision = Revision.find("main", repository)
    with pytest.raises(InputError, match="is a link"):
        revision.extract_model(repository / "net.onnx", tmp_path)
    with pytest.raises(InputError, match="is a folder"):
        revision.extract_model(repository / "deep", tmp_path)


def test_a_shallow_clone_says_what_to_fetch(repository: Path, tmp_path: Path) -> None:
    for text in "ab":
        (repository / "readme").write_text(text)
        commit(repository)
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository}", "clone")
    with pytest.raises(InputError, match="shallow, fetch it first: git fetch --depth=1 origin"):
        Revision.find("origin/other", tmp_path / "clone")
    with pytest.raises(InputError, match="git fetch --unshallow"):
        Revision.find("HEAD~1", tmp_path / "clone")


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file, and no git revision: not a git repository"):
        Revision.find("main", tmp_path)
