"""``snnopt view``: the file as it is, node by node, in Netron."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from snn_optimizer.cli.console import print_json, talk
from snn_optimizer.cli.options import json_option, model_argument, quiet_option
from snn_optimizer.errors import InputError

__all__ = ["view"]

HOST = "localhost"


@click.command(short_help="Open a model in Netron.")
@model_argument()
@click.option("--port", type=click.IntRange(1, 65535), help="Where to serve it.  [default: one that is free]")
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open a browser on it.")
@json_option
@quiet_option
def view(model: Path, port: int | None, browser: bool, *, as_json: bool, quiet: bool) -> int:
    """Show MODEL in Netron, a viewer of model files, until interrupted.

    Netron draws every node of the file. 'snnopt info' and '--report out.html' show the network in it.
    """
    try:
        netron = importlib.import_module("netron")
    except ImportError:
        raise InputError("view needs netron, which is not installed; pip install 'snn-optimizer[view]'") from None
    if not model.is_file():
        raise InputError(f"'{model}': no such file")
    try:
        host, served = netron.start(str(model), address=None if port is None else (HOST, port), browse=browser)
    except OSError as error:
        raise InputError(f"'{model}' cannot be served: {error.strerror or error}; give another --port") from error
    if as_json:
        print_json({"model": str(model), "address": f"http://{host}:{served}"})
    talk(f"snnopt: '{model}' is shown at http://{host}:{served}; interrupt to stop", quiet=quiet)
    netron.wait()  # until interrupted
    return 0
