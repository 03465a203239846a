"""The files that code hosts and pre-commit read are valid, and their commands run as those run them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pre_commit.clientlib import load_manifest

from tests.conftest import ROOT
from tests.support.gate_repository import git, make_regression, make_repository

GITLAB = ROOT / "docs/ci/gitlab.yml"


@pytest.fixture
def repository(tmp_path: Path, models: Path) -> Path:
    return make_repository(tmp_path / "repository", models)


def read(path: Path, schema: str) -> Any:
    """Read a file of a host, and hold it against the host's schema as check-jsonschema ships it."""
    held = resources.files("check_jsonschema").joinpath(f"builtin_schemas/vendor/{schema}.json").read_text()
    found = yaml.safe_load(path.read_text())
    jsonschema.validators.validator_for(json.loads(held))(json.loads(held)).validate(found)
    return found


def bash(script: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script as a runner does: from a file, ending at the first failure."""
    path = folder.parent / "script.sh"
    path.write_text(script)
    shell = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(path)]
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "OMP_NUM_THREADS") if name in os.environ}
    return subprocess.run(shell, cwd=folder, env=kept | environment, capture_output=True, text=True, check=False)


def python_with_our_packages(folder: Path) -> Path:
    """Return a Python whose environments see the packages installed here, so that nothing is downloaded."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    wrapper = folder / "python"
    wrapper.write_text(
        f'#!/bin/sh\n{shlex.quote(sys.executable)} "$@" || exit $?\n'
        f'for made in "$@"; do :; done\necho {shlex.quote(f"import sys; sys.path.insert(0, {packages!r})")} > "$made/lib/{version}/site-packages/ours.pth"\n'
    )
    wrapper.chmod(0o755)
    return wrapper


def test_the_action_runs(repository: Path, models: Path, tmp_path: Path) -> None:
    action = read(ROOT / "action.yml", "github-actions")
    source = tmp_path / "action"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    # "0" is what turns build isolation off: pip reads its variables of negative switches the other way round
    offline = {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}
    given = {"python": str(python_with_our_packages(tmp_path)), "models": "models/n*.onnx\n", "junit": "gate.xml"}
    inputs = {name: held.get("default", "") for name, held in action["inputs"].items()} | given
    contexts = {f"inputs.{name}": value for name, value in inputs.items()} | {"github.action_path": str(source)}

    def evaluated(text: str) -> str:
        return re.sub(r"\$\{\{\s*([\w.-]+)\s*\}\}", lambda match: contexts[match[1]], text)

    def run(step: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"]  # text of a pull request never becomes part of a script
        environment = {name: evaluated(text) for name, text in step["env"].items()}
        folder = repository / evaluated(step.get("working-directory", "."))
        return bash(step["run"], folder, environment | runner)

    output, summary = tmp_path / "output", tmp_path / "summary"
    runner = offline | {
        "RUNNER_TEMP": str(tmp_path), "GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_ACTIONS": "true",
    }  # fmt: skip
    install, gate = action["runs"]["steps"]
    assert action["outputs"]["exit-code"]["value"] == f"${{{{ steps.{gate['id']}.outputs.exit-code }}}}"
    done = run(install)
    assert done.returncode == 0, done.stderr
    done = run(gate)
    assert done.returncode == 0, done.stderr
    make_regression(repository, models)
    done = run(gate)
    assert done.returncode == 1
    assert "::error file=models/net.onnx,line=1" in done.stdout
    assert output.read_text() == "exit-code=0\nexit-code=1\n"
    assert summary.read_text().count("<!-- snnopt gate -->") == 2
    assert (repository / "gate.xml").is_file()


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with the ``snnopt`` and ``python3`` that an installation would put on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    start = f"#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT / 'src'))} exec {shlex.quote(sys.executable)}"
    (folder / "snnopt").write_text(f'{start} -m snn_optimizer "$@"\n')
    # the package is not installed anew here: pip says what it was asked for
    (folder / "python3").write_text(
        f'{start[:10]}if [ "$2" = pip ]; then echo "$@" >> {shlex.quote(str(tmp_path / "pip"))}; exit 0; fi\n'
        f'{start[10:]} "$@"\n'
    )
    for program in folder.iterdir():
        program.chmod(0o755)
    return folder


def test_the_hooks_run(repository: Path, models: Path, programs: Path) -> None:
    hooks = {hook["id"]: hook for hook in load_manifest(str(ROOT / ".pre-commit-hooks.yaml"))}
    assert set(hooks) == {"snnopt-gate", "snnopt-gate-update"}

    def run(name: str) -> subprocess.CompletedProcess[str]:
        hook = hooks[name]
        files = [path for path in git(repository, "ls-files").splitlines() if re.search(hook["files"], path)]
        assert files == ["models/net.onnx"]
        environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        command = [*shlex.split(hook["entry"]), *hook["args"], *files]
        return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)

    assert run("snnopt-gate").returncode == 0
    make_regression(repository, models)
    done = run("snnopt-gate")
    assert (done.returncode, done.stderr) == (1, "")
    assert "OVER BUDGET" in done.stdout
    project = repository / "pyproject.toml"
    project.write_text('[tool.snnopt.gate]\nbytes = "="\n')
    assert run("snnopt-gate-update").returncode == 0
    assert git(repository, "status", "--porcelain", "--untracked-files").splitlines()[-1] == "?? snnopt.lock.json"


def test_the_job_of_gitlab_runs(repository: Path, models: Path, programs: Path, tmp_path: Path) -> None:
    job = read(GITLAB, "gitlab-ci")["snnopt-gate"]
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), "origin")
    git(repository, "remote", "add", "origin", str(tmp_path / "origin"))
    make_regression(repository, models)
    script = "\n".join(job["script"])
    variables = {name: str(value) for name, value in job["variables"].items()} | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
    }
    done = bash(script, repository, variables)
    assert done.returncode == 1
    assert "set SNNOPT_PACKAGE" in done.stderr
    variables["SNNOPT_PACKAGE"] = "snn-optimizer @ file:///somewhere else"
    done = bash(script, repository, variables)
    assert (done.returncode, "against origin/main" in done.stdout) == (1, True), done.stderr
    assert (tmp_path / "pip").read_text().strip().endswith("--quiet snn-optimizer @ file:///somewhere else")
    for name in (job["artifacts"]["reports"]["junit"], *job["artifacts"]["paths"]):
        assert (repository / name).is_file()
    assert bash(script, repository, variables | {"SNNOPT_BASELINE": "change"}).returncode == 1
    git(repository, "checkout", "--quiet", "main")
    assert bash(script, repository, variables | {"SNNOPT_BASELINE": "config"}).returncode == 0
    assert bash(script, repository, variables | {"SNNOPT_MODELS": "models/net.onnx"}).returncode == 0
