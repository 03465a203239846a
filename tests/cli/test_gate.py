"""A regression in a repository fails the gate, and every format says so to a parser of its readers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote

import attr
import jsonschema
import junitparser
import pytest
import sarif_om
from markdown_it import MarkdownIt
from sarif.loader import load_sarif_file
from sarif_pydantic import Sarif

from snn_optimizer.gate import Check, Found, GateResult, Rule, Status
from snn_optimizer.gate.formats import markdown
from snn_optimizer.gate.limits import Kind, Limit
from snn_optimizer.measures import MEASURES
from tests.conftest import ROOT
from tests.support.gate_repository import BUDGET, commit, git, make_regression, make_repository

# what the runner of GitHub Actions takes for a command: actions/runner, ActionCommand.TryParseV2
COMMAND = re.compile(r"^::(?P<name>[^ :]+)(?: (?P<properties>.*?))?::(?P<message>.*)$")


# which class of sarif_om, made from the schema of the standard, the objects under a property are of
SARIF = {
    "runs": sarif_om.Run, "tool": sarif_om.Tool, "driver": sarif_om.ToolComponent, "rules": sarif_om.ReportingDescriptor,
    "shortDescription": sarif_om.MultiformatMessageString, "fullDescription": sarif_om.MultiformatMessageString,
    "defaultConfiguration": sarif_om.ReportingConfiguration, "invocations": sarif_om.Invocation,
    "results": sarif_om.Result, "message": sarif_om.Message, "locations": sarif_om.Location,
    "physicalLocation": sarif_om.PhysicalLocation, "artifactLocation": sarif_om.ArtifactLocation,
    "region": sarif_om.Region,
}  # fmt: skip
FREE = {"properties", "partialFingerprints"}  # hold any names


def assert_known(held: dict, kind: type) -> None:
    """Every property is one the standard knows, and every one it requires is there."""
    fields = {field.metadata["schema_property_name"]: field for field in attr.fields(kind)}
    assert set(held) <= set(fields), kind
    required = {name for name, field in fields.items() if field.default is attr.NOTHING}
    assert required <= set(held), kind
    for name, value in held.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict) and name not in FREE:
                assert_known(one, SARIF[name])


@pytest.fixture
def repository(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    folder = make_repository(tmp_path / "repository", models)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def regression(repository: Path, models: Path) -> Path:
    make_regression(repository, models)
    return repository


def test_an_unchanged_model_is_within_its_budget(snnopt, repository: Path) -> None:
    code, out, err = snnopt("gate")
    assert (code, err) == (0, "")
    assert "models/net.onnx, against main" in out
    assert out.splitlines()[-1] == "5 checks of 1 model: 1 warned, 4 within budget"
    assert git(repository, "status", "--porcelain") == ""


def test_a_regression_fails_and_says_by_how_much(snnopt, regression: Path) -> None:
    code, out, _ = snnopt("gate")
    assert code == 1
    for line in (
        "OVER BUDGET: models/net.onnx: bytes: 79,372 bytes, allowed 41,804 bytes (+2% of 40,985 bytes): over by 37,568",
        "OVER BUDGET: models/net.onnx: neurons: 266, allowed 138 (+0 of 138): over by 128",
        "warning: models/net.onnx: nodes: 8, allowed 7 (-1 of 8): over by 1",
    ):
        assert line in out
    assert "could be smaller: -O2 makes it 37.8% smaller" in out
    assert "run: snnopt optimize models/net.onnx -o models/net.onnx" in out
    assert out.splitlines()[-1] == "5 checks of 1 model: 3 over budget, 1 warned, 1 within budget"


def test_the_advice_helps(snnopt, regression: Path) -> None:
    assert snnopt("optimize", "models/net.onnx", "-o", "models/net.onnx", "-q")[0] == 0
    code, out, _ = snnopt("gate", "--json")
    checks = {check["measure"]: check for check in json.loads(out)["models"][0]["checks"]}
    assert checks["could-be-smaller"]["status"] == "pass"
    assert checks["could-be-smaller"]["value"] == 0
    assert code == 1  # it still has more neurons than that of main


def test_json_is_what_its_schema_says(snnopt, regression: Path) -> None:
    code, out, _ = snnopt("gate", "--json")
    found = json.loads(out)
    schema = json.loads((ROOT / "docs/reference/gate.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(found, schema, jsonschema.Draft202012Validator)
    assert (code, found["exit_code"], found["status"]) == (1, 1, "fail")
    assert found["models"][0]["measures"]["bytes"] == (regression / "models/net.onnx").stat().st_size
    assert found["models"][0]["baseline_measures"]["bytes"] == 40985
    assert found["models"][0]["measures"]["synaptic-operations"] == pytest.approx(10201.342, abs=1e-3)
    assert list(schema["$defs"]["measures"]["properties"]) == list(MEASURES)
    for wrong in ({"status": "fine"}, {"models": []}, {"more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(found | wrong, schema, jsonschema.Draft202012Validator)


def test_junit_is_read_by_a_parser(snnopt, regression: Path) -> None:
    assert snnopt("gate", "--junit", "gate.xml")[0] == 1
    (suite,) = junitparser.JUnitXml.fromfile("gate.xml")
    assert (suite.name, suite.tests, suite.failures, suite.errors, suite.skipped) == ("models/net.onnx", 5, 3, 0, 0)
    failed = {case.name: case.result[0] for case in suite if case.result}
    assert set(failed) == {"bytes +2%", "neurons +0", "could-be-smaller 5%"}
    assert "over by 37,568 bytes" in failed["bytes +2%"].message
    assert failed["bytes +2%"].type == "bytes"
    (warned,) = [case for case in suite if case.name == "nodes -1 (warning)"]
    assert "nodes: 8, allowed 7" in warned.system_out


def test_sarif_is_read_by_a_parser(snnopt, regression: Path) -> None:
    assert snnopt("gate", "--sarif", "gate.sarif")[0] == 1
    written = json.loads(Path("gate.sarif").read_text())
    assert_known(written, sarif_om.SarifLog)
    log = Sarif.model_validate(written)
    assert (log.version, len(log.runs)) == ("2.1.0", 1)
    run = log.runs[0]
    # what section 3.27 of the standard and code scanning require of a result
    for result in run.results or []:
        rule = (run.tool.driver.rules or [])[result.rule_index]
        assert rule.id == result.rule_id
        assert result.message.text
        (location,) = result.locations
        assert location.physical_location.artifact_location.uri == "models/net.onnx"
        assert location.physical_location.region.start_line == 1
        assert result.partial_fingerprints
    assert len({r["partialFingerprints"]["snnoptBudget/v1"] for r in written["runs"][0]["results"]}) == 4
    read = load_sarif_file("gate.sarif").get_report()
    assert {name: len(read.get_issues_for_severity(name)) for name in ("error", "warning", "note")} == {
        "error": 3, "warning": 1, "note": 0,
    }  # fmt: skip


def test_markdown_is_read_by_a_parser(snnopt, regression: Path) -> None:
    assert snnopt("gate", "--markdown", "gate.md")[0] == 1
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(Path("gate.md").read_text())
    assert next(token.content for token in tokens if token.type == "inline") == "❌ Model budgets against `main`"
    items = [
        "".join(child.content for child in tokens[n + 2].children or [])
        for n, token in enumerate(tokens)
        if token.type == "list_item_open"
    ]
    assert len(items) == 4
    assert items[0].startswith("❌ over budget: models/net.onnx bytes: 79,372 bytes")
    assert items[-1].startswith("⚠️ warning: models/net.onnx nodes")
    cells = [tokens[n + 1].content for n, token in enumerate(tokens) if token.type == "td_open"]
    assert cells[:6] == ["bytes", "40.02 KiB", "77.51 KiB", "+93.7%", "+2%", "❌ over budget"]
    assert len(cells) % 6 == 0


def test_markdown_stays_within_a_comment() -> None:
    limit = Limit("1", Kind.ABSOLUTE, 1)
    checks = (Check(Rule("neurons", limit), Status.FAIL, "neurons: 2, allowed 1: over by 1", 2, None, 1),)
    passed = (Check(Rule("neurons", limit), Status.PASS, "", 1, None, 1),)
    found = tuple(
        Found(f"{n}.onnx", f"{n}.onnx", Path(f"{n}.onnx"), {"neurons": 2}, checks if n % 2 else passed)
        for n in range(3000)
    )
    text = markdown(GateResult("snnopt.toml", "", found))
    assert len(text) < 65_536
    shown = text.count("- ❌ over budget: ")
    assert f"- and {1500 - shown} more" in text
    small = markdown(GateResult("snnopt.toml", "", found[:4]))
    assert small.index("❌ 1.onnx") < small.index("❌ 3.onnx") < small.index("✅ 0.onnx") < small.index("✅ 2.onnx")


def test_annotations_are_commands_of_the_runner(snnopt, regression: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "::" not in snnopt("gate")[1]
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    _, out, _ = snnopt("gate")
    found = [match for line in out.splitlines() if (match := COMMAND.match(line))]
    assert [match["name"] for match in found] == ["error", "warning", "error", "error"]
    properties = dict(pair.split("=", 1) for pair in found[0]["properties"].split(","))
    assert properties == {"file": "models/net.onnx", "line": "1", "title": "bytes of net.onnx"}
    assert found[0]["message"].replace("%25", "%").endswith("(+2% of 40,985 bytes): over by 37,568 bytes")
    assert not any(COMMAND.match(line) for line in snnopt("gate", "--no-annotations")[1].splitlines())
    _, out, err = snnopt("gate", "--json")
    assert json.loads(out)["status"] == "fail"
    assert len(err.splitlines()) == 4


def test_the_summary_of_a_job_is_appended_to(snnopt, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = snnopt("gate", "--summary")
    assert (code, err.count("\n")) == (2, 1)
    assert "GITHUB_STEP_SUMMARY" in err
    summary = repository.parent / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert snnopt("gate")[0] == 0
    assert snnopt("gate", "--no-summary")[0] == 0
    text = summary.read_text()
    assert text.startswith("before\n<!-- snnopt gate -->\n")
    assert text.count("<!-- snnopt gate -->") == 1


def test_recorded_measures_are_a_baseline(snnopt, repository: Path, models: Path) -> None:
    Path("pyproject.toml").write_text(BUDGET.replace('baseline = "main"\n', ""))
    code, _, err = snnopt("gate")
    assert (code, err.count("\n")) == (2, 1)
    assert "--update" in err
    code, out, err = snnopt("gate", "--update")
    assert code == 0
    assert "recorded 1 model in snnopt.lock.json" in err
    first = Path("snnopt.lock.json").read_bytes()
    assert json.loads(first)["models"]["models/net.onnx"]["measures"]["neurons"] == 138
    assert snnopt("gate", "--update")[0] == 0
    assert Path("snnopt.lock.json").read_bytes() == first
    make_regression(repository, models)
    code, out, _ = snnopt("gate")
    assert code == 1
    assert "against snnopt.lock.json" in out
    (repository / "models/second.onnx").write_bytes((models / "digits_conv.onnx").read_bytes())
    (repository / "models/second.calib.npz").write_bytes((models / "digits_conv.calib.npz").read_bytes())
    code, out, _ = snnopt("gate", "models/second.onnx", "--json")
    assert code == 1
    assert "is not recorded" in json.loads(out)["models"][0]["checks"][0]["message"]
    code, _, err = snnopt("gate", "--update", "--baseline", "main")
    assert (code, err.count("\n")) == (2, 1)


def test_a_model_that_main_does_not_have_is_new(snnopt, repository: Path, models: Path) -> None:
    for suffix in ("onnx", "calib.npz"):
        (repository / f"models/second.{suffix}").write_bytes((models / f"digits_cuba.{suffix}").read_bytes())
    code, out, _ = snnopt("gate", "models/sec*.onnx", "--junit", "gate.xml")
    assert code == 0
    assert "3 new" in out.splitlines()[-1]
    (suite,) = junitparser.JUnitXml.fromfile("gate.xml")
    assert (suite.name, suite.skipped) == ("models/second.onnx", 3)


def test_time_is_a_ratio_to_a_model_that_runs_beside_it(snnopt, repository: Path) -> None:
    limits = '[gate]\nmodels = ["models/*.onnx"]\nrounds = 6\nrun-time = 0.001\nload-time = "+100000%"\n'
    Path("snnopt.toml").write_text(limits + 'baseline = "main"\n')
    code, out, _ = snnopt("gate", "--json")
    load, run = json.loads(out)["models"][0]["checks"]
    assert (code, load["status"], run["status"]) == (1, "pass", "fail")
    assert 0.001 < run["value"] < 100
    Path("snnopt.toml").write_text(limits)
    assert snnopt("gate", "--update")[0] == 2  # a lock file does not run


@pytest.mark.parametrize(
    ("baseline", "says"),
    [
        ("nowhere", "neither a file nor a revision"),
        ("-x", "begins with '-'"),
        ("missing.json", "--update"),
        ("missing.onnx", "is not there"),
        ("pyproject.toml", "not an ONNX model"),
    ],
)
def test_wrong_baselines_are_one_line(snnopt, repository: Path, baseline: str, says: str) -> None:
    code, out, err = snnopt("gate", f"--baseline={baseline}", "--junit", "gate.xml")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert not Path("gate.xml").exists()


def test_nothing_checked_is_not_passed(snnopt, repository: Path) -> None:
    Path("snnopt.toml").write_text('[gate]\nmodels = ["models/*.onnx"]\n')
    code, _, err = snnopt("gate")
    assert (code, err.count("\n")) == (2, 1)
    assert "no limit applies" in err
    Path("snnopt.toml").write_text('[gate]\nmodels = ["modles/*.onnx"]\nbytes = 1\n')
    code, _, err = snnopt("gate")
    assert (code, err.count("\n")) == (2, 1)
    assert "means no file" in err
    code, _, err = snnopt("gate", "models/none.onnx")
    assert (code, "there is no such file" in err) == (2, True)


def test_names_with_signs(snnopt, repository: Path) -> None:
    name = "a [red] | `b` <i>,:%.onnx"
    Path(name).write_bytes(Path("models/net.onnx").read_bytes())
    Path("snnopt.toml").write_text("[gate]\nneurons = 1\n")
    code, out, _ = snnopt("gate", name, "--annotations", "--junit", "g.xml", "--sarif", "g.sarif", "--markdown", "g.md")
    assert code == 1
    assert out.splitlines()[0].startswith(name)
    (command,) = [match for line in out.splitlines() if (match := COMMAND.match(line))]
    assert command["properties"].split(",")[0] == "file=a [red] | `b` <i>%2C%3A%25.onnx"
    (suite,) = junitparser.JUnitXml.fromfile("g.xml")
    assert suite.name == name
    (result,) = Sarif.model_validate_json(Path("g.sarif").read_text()).runs[0].results or []
    assert result.locations[0].physical_location.artifact_location.uri == quote(name)
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(Path("g.md").read_text())
    item = next(tokens[n + 2] for n, token in enumerate(tokens) if token.type == "list_item_open")
    assert name in "".join(child.content for child in item.children or [])
    assert "&lt;i&gt;" in next(
        token.content for token in tokens if token.type == "html_block" and "summary" in token.content
    )


def test_code_hosts_know_files_from_the_root(snnopt, regression: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(regression / "models")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(regression))
    code, out, _ = snnopt("gate", "net.onnx", "--annotations", "--sarif", "g.sarif", "--junit", "g.xml")
    assert code == 1
    assert out.startswith("net.onnx, against main")
    assert "::error file=models/net.onnx," in out
    assert '"uri": "models/net.onnx"' in Path("g.sarif").read_text()
    assert 'file="models/net.onnx"' in Path("g.xml").read_text()


def test_a_baseline_that_is_no_model(snnopt, repository: Path) -> None:
    model = Path("models/net.onnx").read_bytes()
    Path("models/net.onnx").write_bytes(b"\xff" * 99)
    commit(repository)
    Path("models/net.onnx").write_bytes(model)
    code, _, err = snnopt("gate", "--baseline", "HEAD")
    assert (code, err.count("\n")) == (2, 1)
    assert "'models/net.onnx'" in err.replace(f"{repository}/", "")
    assert "/snnopt-gate-" not in err


@pytest.mark.parametrize("glob", ["a**b.onnx", "models/[z-a].onnx"])
def test_globs_that_are_none(snnopt, repository: Path, glob: str) -> None:
    Path("snnopt.toml").write_text(f'[gate]\nmodels = ["{glob}"]\nneurons = 1\n')
    code, _, err = snnopt("gate")
    assert (code, err.count("\n")) == (2, 1)
    Path("snnopt.toml").write_text('[gate]\nmodels = ["models/*"]\nexclude = ["[z-a]"]\nneurons = 1\n')
    assert snnopt("gate")[0] == 2


def test_a_pointer_instead_of_a_model(snnopt, repository: Path) -> None:
    Path("models/net.onnx").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4307338\n"
    )
    code, _, err = snnopt("gate")
    assert (code, err.count("\n")) == (2, 1)
    assert "Git LFS pointer" in err
    assert "git lfs pull" in err
    commit(repository)
    code, _, err = snnopt("gate", "--baseline", "change")
    assert code == 2
