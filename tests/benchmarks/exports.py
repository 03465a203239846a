"""Optimize the same files with this tool and with the general ONNX optimizers, and print what came out.

    python tests/benchmarks/exports.py                                  the whole corpus
    python tests/benchmarks/exports.py FOLDER net.onnx --only unrolled  these files, as far as they are unrolled
    python tests/benchmarks/exports.py --tools snnopt-O2,onnxslim       these tools

Seconds are those of the whole command in a fresh process, imports included. Load and run times are medians in
onnxruntime with one thread, the outputs of the tools taking turns; run times are shown as the median ratio to
the original export in the same turn (below 1 is faster), in milliseconds where onnxruntime cannot load the original. Changed are the elements of
the outputs that differ from the original in onnxruntime without its own rewriting, or from the framework's outputs
where the original cannot be loaded; in brackets the largest difference.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx
from cases import KINDS, corpus_folder, find_cases
from contenders import CONTENDERS, NAMES, Contender, chosen, count_nodes, first_line
from runs import BATCHES, Case, difference, reference, timings
from tables import HEADER, rows, summary, table

ORIGINAL = "original"
LIMIT = 300.0


class Worker:
    """A process that calls functions; it is replaced when one kills it or takes too long.

    Parameters
    ----------
    limit : float
        Seconds a call may take.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._pool: ProcessPoolExecutor | None = None

    def call(self, function: Callable[..., Any], *arguments: object) -> tuple[Any, str]:
        """Return what the function returns, and the first line of what went wrong, if anything did."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        try:
            return self._pool.submit(function, *arguments).result(self.limit), ""
        except TimeoutError:
            self.close()
            return None, f"onnxruntime took > {self.limit:g} s"
        except Exception as error:  # noqa: BLE001 - reported with the file, and the next one is measured
            if self._pool._broken:
                self.close()
                return None, "onnxruntime died"
            return None, first_line(str(error)) or type(error).__name__

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._pool is None:
            return
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        self._pool = None


def sizes(path: Path) -> dict[str, Any]:
    """Return the nodes of a file and its bytes, weights beside it included."""
    model = onnx.load(path, load_external_data=False)
    top, total = count_nodes(model)
    places = {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
    stored = path.stat().st_size + sum((path.parent / place).stat().st_size for place in places)
    return {"nodes": top, "all_nodes": total, "bytes": stored}


def measure(case: Case, tools: Sequence[Contender], worker: Worker, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return everything measured on one file, by tool; the original is one of them."""
    results: dict[str, Any] = {ORIGINAL: {}}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "reference.npz"
        results[ORIGINAL] |= sizes(case.model)
        unloadable, broken = worker.call(reference, case, store)
        note = unloadable or broken
        results[ORIGINAL]["error"] = note and f"cannot be run: {note}"
        outputs = {} if note else {ORIGINAL: case.model}
        for tool in tools:
            results[tool.name], output = optimized(
                tool, case, Path(folder) / tool.name, arguments.limit, arguments.commands
            )
            if output is None:
                continue
            found, error = ({}, "") if broken else worker.call(difference, case, output, store)
            results[tool.name] |= found or {}
            if error:
                results[tool.name]["error"] = f"the result cannot be run: {error}"
            elif not broken:
                outputs[tool.name] = output
        measured, error = worker.call(timings, case, outputs, arguments.repeats) if outputs else ({}, "")
        if error:
            results[ORIGINAL]["error"] = f"no run times: {error}"
        for name, seconds in (measured or {}).items():
            results[name] |= seconds
    return results


def optimized(
    tool: Contender, case: Case, folder: Path, limit: float, times: int
) -> tuple[dict[str, Any], Path | None]:
    """Run one tool on one file; return its seconds and sizes, and the file unless there is none that can be read."""
    folder.mkdir()
    output = folder / "model.onnx"
    outcomes = [tool.run(case.model.resolve(), output, limit)]
    while len(outcomes) < times and not outcomes[-1].error:
        outcomes.append(tool.run(case.model.resolve(), output, limit))
    result: dict[str, Any] = {
        "seconds": statistics.median(outcome.seconds for outcome in outcomes),
        "expired": outcomes[-1].expired,
        "error": outcomes[-1].error,
    }
    if outcomes[-1].expired or not output.exists():
        return result, None
    try:
        return result | sizes(output), output
    except Exception as error:  # noqa: BLE001 - a tool may write anything
        return result | {"error": f"wrote no readable model: {first_line(str(error))}"}, None


def versions() -> dict[str, str]:
    """Return the versions of what is compared, and of what it runs on."""
    found = {"python": platform.python_version(), "machine": platform.processor() or platform.machine()}
    for package in dict.fromkeys(["onnx", *(contender.package for contender in CONTENDERS)]):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "source tree" if package == "snn-optimizer" else "absent"
    return found


def parsed() -> argparse.Namespace:
    """Return the arguments of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="MODEL.onnx|FOLDER", help="default: the corpus")
    parser.add_argument("--corpus", type=Path, help="default: SNN_CORPUS, or ../shared/corpus")
    parser.add_argument("--tools", help=f"of {','.join(NAMES)} (default: all)")
    parser.add_argument("--only", help=f"kinds of models, of {','.join(KINDS)} (default: all)")
    parser.add_argument("--repeats", type=int, default=31, metavar="N", help="timed runs of every output (default: 31)")
    parser.add_argument("--commands", type=int, default=1, metavar="N", help="timed runs of every command (default: 1)")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS", help="per command (default: 300)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    arguments = parser.parse_args()
    try:
        arguments.tools = chosen(arguments.tools)
    except ValueError as error:
        parser.error(str(error))
    arguments.only = [kind.strip() for kind in (arguments.only or ",".join(KINDS)).split(",")]
    if unknown := set(arguments.only) - set(KINDS):
        parser.error(f"unknown kind {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    if min(arguments.repeats, arguments.commands) < 1 or arguments.limit <= 0:
        parser.error("--repeats, --commands and --limit are positive")
    arguments.paths = arguments.paths or [arguments.corpus or corpus_folder()]
    if missing := [str(path) for path in arguments.paths if not path.exists()]:
        parser.error(f"no such file or folder: {', '.join(missing)}")
    return arguments


def main() -> None:
    """Measure file by file; what is done so far is on the screen and in the files."""
    arguments = parsed()
    reasons = {tool.name: tool.absent() for tool in arguments.tools}
    tools = [tool for tool in arguments.tools if not reasons[tool.name]]
    absent = {name: reason for name, reason in reasons.items() if reason}
    record: dict[str, Any] = {"versions": versions(), "absent": absent, "batches": BATCHES, "files": {}}
    worker = Worker(arguments.limit)
    found = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines = [f"{found}; {arguments.repeats} timed runs, {arguments.commands} timed commands", ""]
    lines += [f"absent: {name}: {reason}" for name, reason in absent.items()]
    lines += ["", *table([HEADER])]
    print("\n".join(lines), flush=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for case in find_cases(arguments.paths, Path(scratch)):
                name, error = case if isinstance(case, tuple) else (case.name, "")
                if isinstance(case, Case) and case.kind not in arguments.only:
                    continue
                results = {ORIGINAL: {"error": error}}
                if isinstance(case, Case):
                    try:
                        results = measure(case, tools, worker, arguments)
                    except Exception as failure:  # noqa: BLE001 - the other files are measured
                        results[ORIGINAL]["error"] = f"not measured: {first_line(str(failure))}"
                kind = case.kind if isinstance(case, Case) else "unreadable"
                record["files"][name] = {"kind": kind, "results": results}
                new = table(rows(name, results, BATCHES), header=False)
                print("\n".join(new), flush=True)
                lines += new
                write(arguments, record, lines)
    except KeyboardInterrupt:
        print("stopped; the summary is of the files above", file=sys.stderr)
    finally:
        worker.close()
    new = ["", *summary(record)]
    print("\n".join(new))
    write(arguments, record, lines + new)


def write(arguments: argparse.Namespace, record: dict[str, Any], lines: list[str]) -> None:
    """Write the files asked for."""
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
