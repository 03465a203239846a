"""``--certificate`` and ``check-certificate`` from the outside."""

from __future__ import annotations

import json
from pathlib import Path


def test_a_certificate_is_written_checked_and_rejected(snnopt, models: Path, tmp_path: Path) -> None:
    before, after, certificate = models / "digits_pruned.onnx", tmp_path / "small.onnx", tmp_path / "c.json"
    code, out, err = snnopt("optimize", before, "-o", after, "--certificate", certificate, "-q")
    assert code == 0, err
    code, out, err = snnopt("check-certificate", before, after, certificate)
    assert code == 0
    assert "60 of 60 cut units are proved" in out
    assert "HOLDS    statistical: sums of 'fc1' are rounded" in out
    code, out, err = snnopt("check-certificate", before, after, certificate, "--json")
    told = json.loads(out)
    assert told["holds"]
    assert told["proved"] == 60
    code, out, err = snnopt("check-certificate", after, before, certificate)
    assert code == 1
    assert "REJECTED the model before is not the one the certificate speaks of" in out
    code, _, err = snnopt("check-certificate", tmp_path / "gone.onnx", after, certificate)
    assert code == 2
    assert "gone.onnx" in err
    content = json.loads(certificate.read_text())
    content["cuts"][0]["records"][0]["bounds"][0] += 1
    certificate.write_text(json.dumps(content))
    code, out, err = snnopt("check-certificate", before, after, certificate)
    assert code == 1
    assert "REJECTED the certificate was changed after it was written" in out


def test_what_cannot_be_certified_is_refused_before_anything_runs(snnopt, models: Path, tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes((models / "digits_pruned.onnx").read_bytes())
    for arguments, message in (
        (("-o", model), "--certificate needs the original"),
        (("-o", tmp_path / "o.onnx", "--dry-run"), "--certificate speaks of the file that is written"),
    ):
        code, _, err = snnopt("optimize", model, *arguments, "--certificate", tmp_path / "c.json")
        assert code == 2
        assert message in err
        assert not (tmp_path / "c.json").exists()


def test_files_that_are_no_certificates(snnopt, models: Path, tmp_path: Path) -> None:
    model, path = models / "digits_pruned.onnx", tmp_path / "c.json"
    for text, message in (
        ("{", "is not JSON"),
        ("[]", "is not a certificate"),
        ('{"format": "other"}', "is not a certificate"),
        ('{"format": NaN}', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ):
        path.write_text(text)
        code, _, err = snnopt("check-certificate", model, model, path)
        assert code == 2, text[:10]
        assert message in err
    code, _, err = snnopt("check-certificate", model, model, tmp_path / "none.json")
    assert code == 2
    assert "cannot be read" in err
    path.write_text('{"format": "snn-optimizer certificate 1"}')
    code, out, _ = snnopt("check-certificate", model, model, path)
    assert code == 1
    assert "REJECTED" in out
