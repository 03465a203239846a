"""Files are written atomically, streamed, and over the file they came from."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper, parser

from snn_optimizer.errors import OutputError, UnsupportedModelError
from snn_optimizer.ir import Module, Rewriter, array_of, files, save

TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
net (float[N, 1000] x) => (float[N, 1000] y) {
    h = Mul (x, w)
    g = Mul (h, w2)
    c = Constant <value: tensor = float[2] {1.0, 2.0}> ()
    y = Neg (g)
}
"""


def build() -> ModelProto:
    model = parser.parse_model(TEXT)
    random = np.random.default_rng(5)
    for name, rows in (("w", 300), ("w2", 2), ("tiny", 0)):
        values = random.standard_normal((rows, 1000), dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    big = random.standard_normal((5, 700), dtype=np.float32)
    model.graph.node[2].attribute[0].t.CopyFrom(numpy_helper.from_array(big, ""))
    return model


def load_all(path: Path) -> ModelProto:
    """Read a model with its external data inlined, by the onnx package alone."""
    model = onnx.load(path)
    for tensor in (*model.graph.initializer, model.graph.node[2].attribute[0].t):
        tensor.ClearField("data_location")  # set to its default while inlining
    return model


def stored(model: ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ------------------------------------------------------------- external data


def test_external_data_is_next_to_the_model(tmp_path: Path) -> None:
    model = build()
    target = tmp_path / "out.onnx"
    total = Module.load(model).save(target, external=True)
    assert names_in(tmp_path) == {"out.onnx", "out.onnx.data"}
    assert total == target.stat().st_size + (tmp_path / "out.onnx.data").stat().st_size
    assert target.stat().st_size < 2000
    assert load_all(target) == model
    onnx.checker.check_model(target)


def test_large_external_tensors_start_on_pages(tmp_path: Path) -> None:
    Module.load(build()).save(tmp_path / "out.onnx", external=True)
    skeleton = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    offsets = {
        tensor.name: int(next(e.value for e in tensor.external_data if e.key == "offset"))
        for tensor in skeleton.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    }
    assert offsets["w"] % 4096 == 0
    assert all(offset % 64 == 0 for offset in offsets.values())


def test_external_stays_external_and_inline_inline(tmp_path: Path) -> None:
    model = build()
    first = tmp_path / "a.onnx"
    Module.load(model).save(first, external=True)
    module = Module.load(first)
    module.save(tmp_path / "b.onnx")
    module.save(tmp_path / "c.onnx", external=False)
    Module.load(tmp_path / "c.onnx").save(tmp_path / "d.onnx")
    assert names_in(tmp_path) == {"a.onnx", "a.onnx.data", "b.onnx", "b.onnx.data", "c.onnx", "d.onnx"}
    for name in "abcd":
        assert load_all(tmp_path / f"{name}.onnx") == model
    assert module.to_proto() == model


def test_no_data_file_when_all_tensors_are_small(tmp_path: Path) -> None:
    model = parser.parse_model(TEXT)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "w"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "w2"))
    Module.load(model).save(tmp_path / "out.onnx", external=True)
    assert names_in(tmp_path) == {"out.onnx"}


# ------------------------------------------------------------------ in place


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_output_may_be_the_input(external: bool, mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if mapped:
        monkeypatch.setattr(files, "_KEEP_BELOW", 0)
        monkeypatch.setattr(files, "_ALWAYS_READ", 0)
    model = build()
    path = tmp_path / "net.onnx"
    Module.load(model).save(path, external=external)
    module = Module.load(path)
    first = module.graph.nodes[0]
    rewriter = Rewriter(module)
    rewriter.set_input(first, 1, rewriter.constant("w_new", np.zeros((300, 1000), np.float32)))
    rewriter.finish()
    for _ in range(2):  # the mapped old file outlives its name
        module.save(path)
    found = load_all(path)
    assert [tensor.name for tensor in found.graph.initializer] == ["w2", "tiny", "w_new"]
    assert found.graph.initializer[0] == model.graph.initializer[1]
    assert (tmp_path / "net.onnx.data").exists() == external


def test_file_overwritten_in_place_does_not_disturb_a_loaded_model(tmp_path: Path) -> None:
    model = build()
    path = stored(model, tmp_path)
    module = Module.load(path)
    path.write_bytes(b"")
    assert module.to_proto() == model


def test_mapped_tensors_are_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_KEEP_BELOW", 0)
    monkeypatch.setattr(files, "_ALWAYS_READ", 0)
    module = Module.load(stored(build(), tmp_path))
    weight = module.graph.nodes[0].inputs[1]
    first, second = array_of(weight), array_of(weight)
    assert first is not None
    assert second is not None
    assert np.shares_memory(first, second)
    assert not first.flags.writeable


def test_save_is_deterministic(tmp_path: Path) -> None:
    path = stored(build(), tmp_path)
    for name in ("a", "b"):
        Module.load(path).save(tmp_path / f"{name}.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


# ------------------------------------------------------------------ failures


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none/out\.onnx': cannot write: No such file"):
        Module.load(build()).save(tmp_path / "none" / "out.onnx")


def test_output_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not a regular file"):
        Module.load(build()).save(tmp_path)


def test_device_is_not_replaced() -> None:
    with pytest.raises(OutputError, match="not a regular file"):
        Module.load(build()).save(os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)  # noqa: PTH116 -- a device, not a path of ours


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        Module.load(build()).save(tmp_path / "out.onnx")


def _old_files(folder: Path) -> dict[str, bytes]:
    Module.load(parser.parse_model(TEXT.replace("Mul (h, w2)", "Neg (h)").replace("w)", "x)"))).save(
        folder / "net.onnx"
    )
    (folder / "net.onnx.data").write_bytes(b"old data")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("external", [False, True])
def test_full_disk_leaves_the_old_files(external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _old_files(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(save, "_write_payload", full)
    with pytest.raises(OutputError, match=r"net\.onnx.*No space left"):
        Module.load(build()).save(tmp_path / "net.onnx", external=external)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("links", [True, False])
def test_failure_while_moving_leaves_the_old_files(
    failing: int, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _old_files(tmp_path)
    replace = Path.replace
    calls = 0

    def flaky(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return replace(self, target)

    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "replace", flaky)
    if not links:
        monkeypatch.setattr(os, "link", no_link)
    with pytest.raises(OutputError, match="Input/output error"):
        Module.load(build()).save(tmp_path / "net.onnx", external=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_failure_while_moving_leaves_no_new_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def only_data(self: Path, target: Path) -> Path:
        if target.suffix != ".data":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", only_data)
    with pytest.raises(OutputError, match=r"net\.onnx'.*Input/output error"):
        Module.load(build()).save(tmp_path / "net.onnx", external=True)
    assert names_in(tmp_path) == set()


def test_name_that_cannot_be() -> None:
    with pytest.raises(OutputError, match="not a file name"):
        Module.load(build()).save("a\0b")


def test_interruption_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _old_files(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(save, "_write_payload", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Module.load(build()).save(tmp_path / "net.onnx")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_permissions_of_the_old_file_are_kept(tmp_path: Path) -> None:
    path = stored(build(), tmp_path)
    path.chmod(0o640)
    Module.load(path).save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


# --------------------------------------------------------------- large models


def _pretend_limit(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(save, "LIMIT", limit)


def test_too_large_for_one_file_becomes_external(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_limit(monkeypatch, 100_000)
    model = build()
    Module.load(model).save(tmp_path / "out.onnx")
    assert names_in(tmp_path) == {"out.onnx", "out.onnx.data"}
    assert load_all(tmp_path / "out.onnx") == model


def test_too_large_for_one_file_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_limit(monkeypatch, 100_000)
    with pytest.raises(OutputError, match="use external data"):
        Module.load(build()).save(tmp_path / "out.onnx", external=False)
    _pretend_limit(monkeypatch, 100)
    with pytest.raises(OutputError, match="without its tensors"):
        Module.load(build()).save(tmp_path / "out.onnx")
    assert names_in(tmp_path) == set()


def test_too_large_for_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_limit(monkeypatch, 100_000)
    module = Module.load(build())
    with pytest.raises(UnsupportedModelError, match="external data"):
        module.to_proto()
    assert module.skeleton().ByteSize() < 20_000


def test_skeleton_has_the_shapes_without_the_data() -> None:
    skeleton = Module.load(build()).skeleton()
    assert skeleton.ByteSize() < 20_000
    inferred = onnx.shape_inference.infer_shapes(skeleton)
    shapes = {
        info.name: [dim.dim_value or dim.dim_param for dim in info.type.tensor_type.shape.dim]
        for info in inferred.graph.value_info
    }
    assert shapes["c"] == [5, 700]


LARGE = """
    import resource, sys, time
    from pathlib import Path
    import numpy as np
    from snn_optimizer.ir import GraphIndex, Module, Rewriter, shape_of_constant, verify_structure

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    start = peak()
    path = Path(sys.argv[1])
    module = Module.load(path)
    verify_structure(module)
    index = GraphIndex(module)
    small = next(v for v in module.constants() if v.name == "small")
    rewriter = Rewriter(module)
    rewriter.edit_constant(index.consumers(small), np.full(4, 7, np.float32))
    rewriter.finish()
    module.skeleton()
    total = module.save(path.with_name("out.onnx"))
    module.copy()
    print(peak() - start, total)
"""


@pytest.mark.slow
def test_model_above_two_gib_needs_little_memory(tmp_path: Path) -> None:
    """5 tensors of 512 MiB; the data file is sparse, so the disk holds little of it."""
    size = 512 << 20
    model = ModelProto(ir_version=10)
    model.opset_import.add(domain="", version=18)
    graph = model.graph
    graph.name = "large"
    graph.input.append(onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, [4]))
    graph.output.append(onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "small"))
    value = "x"
    for number in range(5):
        tensor = graph.initializer.add(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[size // 16, 4])
        tensor.data_location = TensorProto.EXTERNAL
        for key, text in (("location", "w.bin"), ("offset", str(number * size)), ("length", str(size))):
            tensor.external_data.add(key=key, value=text)
        graph.node.add(op_type="Add", input=[value, f"w{number}"], output=[f"h{number}"])
        value = f"h{number}"
    graph.node.add(op_type="Mul", input=[value, "small"], output=["y"])
    (tmp_path / "in.onnx").write_bytes(model.SerializeToString())
    with (tmp_path / "w.bin").open("wb") as stream:
        stream.truncate(5 * size)
        for number in range(5):
            stream.seek(number * size + size // 2)
            stream.write(bytes([number + 1]) * 100)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LARGE), str(tmp_path / "in.onnx")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    growth, total = map(float, done.stdout.split())
    assert growth < 300
    assert total >= 5 * size
    assert time.monotonic() - started < 20
    result = Module.load(tmp_path / "out.onnx")
    for number, held in enumerate(v for v in result.constants() if v.name.startswith("w")):
        array = array_of(held)
        assert array is not None
        assert array.nbytes == size
        flat = array.reshape(-1).view(np.uint8)
        assert flat[size // 2] == number + 1
        assert not flat[size // 2 + 100 : size // 2 + 5000].any()
    assert onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer[0].raw_data == (
        np.full(4, 7, np.float32).tobytes()
    )
