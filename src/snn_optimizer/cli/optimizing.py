"""``snnopt optimize``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snn_optimizer.cli.certificates import require_original, write_certificate
from snn_optimizer.cli.console import bytes_text, print_json, print_table, progress_bar, talk
from snn_optimizer.cli.names import Choice, PipelineText
from snn_optimizer.cli.nir_files import (
    allow_loss_option,
    describe,
    export_nir,
    is_nir,
    nir_options,
    open_model,
    save_nir,
)
from snn_optimizer.cli.options import (
    domain_of,
    frontend_of,
    input_max_active_option,
    input_range_option,
    json_option,
    model_argument,
    quiet_option,
    seed_option,
)
from snn_optimizer.cli.reporting import html_page, result_keeper
from snn_optimizer.cli.reproducing import run_watched
from snn_optimizer.errors import InputError

if TYPE_CHECKING:
    from snn_optimizer.pipeline.spec import PassSpec
    from snn_optimizer.report import OptimizationReport

__all__ = ["LEVELS", "forbid_unbudgeted", "optimize"]

LEVELS = ("0", "1", "2", "3", "z")


@click.command(short_help="Optimize a model.")
@model_argument()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write the result.  [required unless --dry-run]",
)
@click.option("-O", "level", type=Choice(LEVELS), default=None, help="Level: -O0 to -O3, -Oz.  [default: -O2]")
@click.option(
    "-p",
    "--pipeline",
    type=PipelineText(),
    help="Pipeline text instead of a level, for example 'layer-fusion,dead-code'.",
)
@click.option("--calib", type=click.Path(path_type=Path), help="Samples (.npz): one array per input, and labels.")
@click.option(
    "--profile",
    "profile_path",
    type=click.Path(path_type=Path),
    help="Profile (.npz) written by 'snnopt profile'.",
)
@click.option(
    "--test",
    type=click.Path(path_type=Path),
    help="Labelled samples (.npz) for the accuracy before and after.",
)
@click.option("--min-calibration", type=click.IntRange(min=0), default=0, help="Refuse fewer calibration samples.")
@click.option("--max-accuracy-drop", type=float, help="Budget: accuracy may fall by this fraction.")
@click.option("--max-decision-change", type=float, help="Budget: this fraction of samples may be decided otherwise.")
@click.option("--max-spike-change", type=float, help="Budget: this fraction of output spikes may differ.")
@input_range_option
@input_max_active_option
@click.option("--emit", type=Choice(["sequence", "step", "scan"]), help="Form of the result.  [default: as it came]")
@click.option("--states", metavar="IN=OUT,...", help="States of a one-step model.  [default: found from the dataflow]")
@click.option("--custom-ops", type=click.Path(path_type=Path), help="Neuron operators without a body (.toml).")
@nir_options
@allow_loss_option
@click.option("--report", "report_path", type=click.Path(path_type=Path), help="Write a report (.html, .json or .md).")
@click.option("--certificate", type=click.Path(path_type=Path), help="Write what is proved of the result (.json).")
@click.option("--remarks", "remarks_pattern", metavar="REGEX", help="Print the remarks of matching passes.")
@click.option("--remarks-output", type=click.Path(path_type=Path), help="Write all remarks (.jsonl).")
@click.option("--time-passes", is_flag=True, help="Print the time of every pass.")
@click.option("--pass-statistics", is_flag=True, help="Print the counters of every pass.")
@click.option("--print-after-all", is_flag=True, help="Print the network after every pass.")
@click.option("--print-after-change", is_flag=True, help="Print the network after every pass that changed it.")
@click.option(
    "--bisect-limit",
    metavar="N[.M]",
    help="Skip runs of passes after the first N, and of the N-th the rewrites after the first M; -1: none.",
)
@click.option("--verify-each", is_flag=True, help="Check every pass that changed something, bitwise ones too.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Check passes and result with onnxruntime.")
@click.option("--strip-metadata", is_flag=True, help="Drop documentation and metadata of nodes (stack traces).")
@click.option("--external-data/--no-external-data", default=None, help="Weights beside the file.  [default: as needed]")
@click.option(
    "--reproducer", "reproducer_path", type=click.Path(path_type=Path), metavar="PATH",
    help="When a pass raises or breaks its claim, write one file that replays it.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Do everything but write the model.")
@seed_option
@json_option
@quiet_option
def optimize(model: Path, output: Path | None, level: str | None, pipeline: str | None, **options: Any) -> int:
    """Optimize MODEL and write the result to OUTPUT, checked against the original with onnxruntime.

    \b
    snnopt optimize net.onnx -o small.onnx
    snnopt optimize net.onnx -o small.onnx -O3 --calib train.npz
    snnopt optimize net.onnx -o tiny.onnx -Oz --calib train.npz --max-accuracy-drop 0.01
    snnopt optimize net.nir -o small.nir --dt 1e-4
    """  # noqa: D301 - a backspace keeps click from filling the lines
    from snn_optimizer.api import Job  # noqa: PLC0415 - heavy; --help must be quick
    from snn_optimizer.ir.atomic import AtomicFiles, check_targets, write_text  # noqa: PLC0415
    from snn_optimizer.pipeline.budget import Budget  # noqa: PLC0415

    if output is None and not options["dry_run"]:
        raise InputError("say where to write the result: -o OUT.onnx (or --dry-run)")
    if level is not None and pipeline is not None:
        raise InputError("give a level or a pipeline (-O or -p), not both")
    report_path: Path | None = options["report_path"]
    if report_path is not None and report_path.suffix not in {".html", ".json", ".md"}:
        raise InputError(f"report '{report_path}' must end in .html, .json or .md")
    keeper = None
    if report_path is not None and report_path.suffix == ".html":
        from snn_optimizer.report.html import require_libraries  # noqa: PLC0415 - heavy

        require_libraries(str(report_path))
        keeper = result_keeper()
    if options["certificate"] is not None:
        require_original(model, output, dry_run=options["dry_run"])
    if options["verify_each"] and not options["verify"]:
        raise InputError("--verify-each checks every pass and --no-verify checks none: give one of them")
    check_targets(
        None if options["dry_run"] else output, report_path, options["remarks_output"], options["certificate"]
    )
    limit, rewrite_limit = _limits(options["bisect_limit"])
    budget = Budget(options["max_accuracy_drop"], options["max_decision_change"], options["max_spike_change"])
    text = pipeline if pipeline is not None else f"@O{level or '2'}"
    forbid_unbudgeted(text, budget)
    network = open_model(model, output, options)
    source = model if network is None else network.graph.to_onnx()
    with progress_bar(quiet=options["quiet"] or options["as_json"]) as progress:
        job = Job(
            pipeline=text,
            calibration=options["calib"],
            profile=options["profile_path"],
            test=options["test"],
            budget=budget,
            domain=domain_of(options["input_ranges"], options["input_max_active"]),
            verify=options["verify"],
            seed=options["seed"],
            strip_metadata=options["strip_metadata"],
            verify_each=options["verify_each"],
            limit=limit,
            rewrite_limit=rewrite_limit,
            emit=options["emit"] or "",
            min_calibration=options["min_calibration"],
            frontend=frontend_of(options["states"], options["custom_ops"]),
            instruments=[*_instruments(options), *([] if keeper is None else [keeper])],
            progress=progress,
        )
        graph, report = run_watched(source, job, options["reproducer_path"], quiet=options["quiet"])
    report.model = model.name
    for warning in (*report.warnings, *_broken_claims(report)):
        talk(f"snnopt: warning: {warning}", quiet=options["quiet"])
    if report.evidence.verdict == "DIFFERENT" and report.exactness != "lossy":
        talk(f"snnopt: the result differs from '{model}', nothing was written: {report.evidence.reason}")
        return 1
    page = None
    if keeper is not None:
        with progress_bar(quiet=options["quiet"] or options["as_json"]) as progress:
            page = html_page(report, source, keeper.graph or graph, job, progress)
    exported = None
    if output is not None and is_nir(output):
        exported = export_nir(graph, output, options, network, allowed=options["allow_loss"], quiet=options["quiet"])
        if exported is None:
            return 1
        report.form = f"NIR: {describe(exported)}"
    with AtomicFiles() as files:  # all of them or none
        if exported is not None and output is not None and not options["dry_run"]:
            save_nir(exported, output, files)
        elif output is not None and not options["dry_run"]:
            graph.save(output, external=options["external_data"], files=files)
        if report_path is not None:
            write_text(report_path, page or report.dumps(report_path.suffix), files=files)
        if (remarks := options["remarks_output"]) is not None:
            write_text(remarks, "".join(json.dumps(r.to_json()) + "\n" for r in report.remarks), files=files)
    if options["certificate"] is not None and output is not None:
        written = output if exported is None else exported.again.graph.to_onnx()
        write_certificate(source, graph, job, output, options["certificate"], written)
    _print(report, output, options)
    return 0


def _limits(text: str | None) -> tuple[int | None, int | None]:
    """Read ``--bisect-limit``: how many runs of passes, and how many rewrites of the last of them."""
    if text is None or text == "-1":
        return None, None
    found = re.fullmatch(r"([0-9]+)(?:\.([0-9]+))?", text)
    if found is None:
        raise InputError(f"--bisect-limit '{text}' is not N or N.M, for example 6, 6.2 or -1")
    return int(found[1]), None if found[2] is None else int(found[2])


def _broken_claims(report: OptimizationReport) -> list[str]:
    """Name the passes that did not keep their claim; a lossy one that exceeds the budget made none."""
    return [
        f"pass ({result.number}) {result.text} broke its {result.claim} claim and was rolled back, it "
        f"{result.blame()}: {result.reason}"
        for result in report.pass_results
        if result.status == "rolled back" and result.claim != "lossy"
    ]


def forbid_unbudgeted(text: str, budget: Any) -> None:
    """Refuse a pass that changes results when nobody said how much it may cost."""
    from snn_optimizer.passes import registry  # noqa: PLC0415 - heavy
    from snn_optimizer.passes.base import Exactness  # noqa: PLC0415
    from snn_optimizer.pipeline.presets import expand  # noqa: PLC0415
    from snn_optimizer.pipeline.spec import parse  # noqa: PLC0415

    pending = list(expand(parse(text)).elements)
    while pending:
        element: Any = pending.pop()
        if hasattr(element, "body"):
            pending.extend(element.body)
        elif registry.create(element.name, dict(element.options)).claim is Exactness.LOSSY and not budget.is_set:
            raise InputError(
                f"'{element}' changes results: give a budget, --max-accuracy-drop (needs labels), "
                "--max-decision-change or --max-spike-change, and --calib DATA.npz"
            )


def _instruments(options: dict[str, Any]) -> list[Any]:
    from snn_optimizer.pipeline.manager import Instrument  # noqa: PLC0415 - heavy

    class Printer(Instrument):
        """Prints the network after passes."""

        def after_pass(self, result: Any, graph: Any) -> None:
            if options["print_after_all"] or result.status == "kept":
                talk(f"; after {result.name} ({result.status})\n{graph}")

    class Counter(Instrument):
        """Says the number of every run of a pass."""

        def before_pass(self, number: int, spec: PassSpec, *, runs: bool) -> None:
            talk(f"BISECT: {'running' if runs else 'NOT running'} pass ({number}) {spec}", quiet=options["quiet"])

        def after_pass(self, result: Any, graph: Any) -> None:
            if result.status != "unchanged" and result.rewrites:
                talk(
                    f"BISECT: pass ({result.number}) made {result.rewrites:,} rewrites, the last: "
                    f"{result.last_rewrite}",
                    quiet=options["quiet"],
                )

    counted = options["bisect_limit"] is not None or options["remarks_pattern"] is not None
    printed = options["print_after_all"] or options["print_after_change"]
    return [*([Counter()] if counted else []), *([Printer()] if printed else [])]


def _print(report: OptimizationReport, output: Path | None, options: dict[str, Any]) -> None:
    if options["as_json"]:
        print_json(report.to_json() | {"output": None if output is None else str(output)})
        return
    before, after = report.before, report.after
    rows = [
        [label, show(old), show(new), "" if old == new else f"{(new - old) / max(old, 1):+.1%}"]
        for label, old, new, show in (
            ("neurons", before.neurons, after.neurons, _number),
            ("parameters", before.params, after.params, _number),
            ("non-zero parameters", before.nonzero_params, after.nonzero_params, _number),
            ("nodes", before.nodes, after.nodes, _number),
            ("bytes", before.bytes, after.bytes, bytes_text),
        )
    ]
    if report.accuracy_before is not None and report.accuracy_after is not None:
        points = (report.accuracy_after - report.accuracy_before) * 100
        label = f"accuracy ({report.accuracy_samples} samples)"
        rows.append([label, f"{report.accuracy_before:.2%}", f"{report.accuracy_after:.2%}", f"{points:+.2f} points"])
    click.echo(f"{report.model}  {report.pipeline}")
    print_table(
        "",
        [("", "left"), ("before", "right"), ("after", "right"), ("change", "right")],
        rows,
    )
    _print_passes(report, options)
    _print_verdict(report, output, options)
    if (pattern := options["remarks_pattern"]) is not None:
        for remark in report.remarks:
            if re.search(pattern, f"{remark.pass_name}/{remark.rule}"):
                talk(str(remark))


def _print_passes(report: OptimizationReport, options: dict[str, Any]) -> None:
    from snn_optimizer.report import describe_result  # noqa: PLC0415 - heavy

    timed = options["time_passes"]
    shown = [r for r in report.pass_results if timed or options["pass_statistics"] or r.status != "unchanged"]
    columns = [("pass", "left"), ("claim", "left"), ("result", "left")]
    rows = [[r.name, r.claim, describe_result(r)] for r in shown]
    if timed:
        columns += [("seconds", "right"), ("check", "right")]
        for row, result in zip(rows, shown, strict=True):
            row += [f"{result.seconds:.3f}", f"{result.check_seconds:.3f}"]
    if options["pass_statistics"]:
        columns.append(("statistics", "left"))
        for row, result in zip(rows, shown, strict=True):
            row.append(", ".join(f"{k}={v}" for k, v in sorted(result.statistics.items())))
    click.echo()
    if rows:
        print_table("", columns, rows)
    else:
        click.echo("no pass found anything to do")


def _print_verdict(report: OptimizationReport, output: Path | None, options: dict[str, Any]) -> None:
    from snn_optimizer.report import describe_evidence  # noqa: PLC0415 - heavy

    click.echo()
    verdict = describe_evidence(report.evidence) if report.evidence.verdict else "not verified (--no-verify)"
    if report.exactness == "lossy" and report.evidence.verdict == "DIFFERENT":
        verdict = verdict.replace("DIFFERENT", "LOSSY, within the budget", 1)
    click.echo(f"verdict  {verdict}")
    if report.split:
        click.echo(f"samples  {report.split}")
    if options["input_max_active"]:
        click.echo(f"premise  {'; '.join(report.assumptions)}")
    if report.form:
        click.echo(f"form     {report.form}")
    if output is not None and not options["dry_run"]:
        click.echo(f"wrote    {output} in {report.seconds:.1f} s")


def _number(value: int) -> str:
    return f"{value:,}"
