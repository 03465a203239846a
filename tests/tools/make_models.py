"""Trains the networks of `models/` and writes their ONNX files, sample files and `MANIFEST.toml`.

    PYTHONPATH=src python tests/tools/make_models.py [--only NAME ...] [--into DIRECTORY]
    PYTHONPATH=src python tests/tools/make_models.py --more 3 --samples 900 --into DIRECTORY

The second form trains each recipe again from other seeds: `digits_mlp-1.onnx`, `digits_mlp-2.onnx`, ...
Everything is seeded and runs on one thread: the same library versions on the same kind of processor give
the same bytes.
"""

import argparse
import hashlib
import itertools
import sys
import time
import tomllib
from pathlib import Path

import model_checks
import torch
from digits_data import (
    DATASET,
    LICENSE,
    SAMPLES_PER_FILE,
    Floats,
    Half,
    Labels,
    calibration_samples,
    held_out_samples,
    load_halves,
    shape_as_images,
    write_samples,
)
from digits_recipes import RECIPES, Recipe
from onnx import helper, numpy_helper
from spiking_export import ModelBuilder

ORIGIN = "trained by tests/tools/make_models.py"
LEAST_ACCURACY = 0.93
SEED_STEP = 1000
DEFAULT_DIRECTORY = Path(__file__).resolve().parents[2] / "models"
COUNTED = (".weight", ".bias", ".running_mean", ".running_var")
MANIFEST_HEADER = """\
# Written by tests/tools/make_models.py: do not edit.
# neurons: of all populations. parameters: weights, biases and the four vectors of a batch normalisation,
# zeros included. test_accuracy: largest readout sum over time, in ONNX Runtime, on the .test.npz.
# silent: neurons of each spiking population that never fire on the .calib.npz; silent_fraction: of all.
# against_pytorch: this file in ONNX Runtime against the network it was written from, on the .test.npz; on
# equal currents, which leaves out the order in which the two libraries sum a projection, bit for bit.
"""

Entry = dict[str, str | int | float | dict[str, int]]


def make(recipe: Recipe, train: Half, test: Half, directory: Path, *, again: int, samples: int) -> Entry:
    """Train, write, check and describe one model; ``again`` counts the times it is trained from other seeds."""
    network = recipe.train(train, SEED_STEP * again, lambda line: print(f"{recipe.name}: {line}", flush=True))
    name = _name(recipe, again)
    builder = ModelBuilder(name)
    network.export(builder)
    model = builder.model(f"{recipe.description}; {DATASET}")
    model_checks.check_file(model)

    calibration = _shaped(calibration_samples(train, samples), images=network.images)
    held_out = _shaped(held_out_samples(test, samples), images=network.images)
    accuracy = model_checks.accuracy(model, *held_out)
    if accuracy < LEAST_ACCURACY:
        raise SystemExit(f"{recipe.name}: test accuracy {accuracy:.4f} is below {LEAST_ACCURACY}")
    agreement = model_checks.compare(model, network, held_out[0])
    print(f"{recipe.name}: against PyTorch, {agreement}", flush=True)
    if any(agreement.population_differs.values()):
        raise SystemExit(f"{recipe.name}: a population differs from PyTorch on equal currents")
    outputs = model_checks.population_outputs(model, network, calibration[0])
    silent = model_checks.silent_counts(outputs, network)
    sizes = {name: int(spikes[0, 0].size) for name, (_, spikes) in outputs.items()}

    helper.set_model_props(model, {"origin": ORIGIN, "dataset": DATASET, "accuracy": f"{accuracy:.4f}"})
    path = directory / f"{name}.onnx"
    content = model.SerializeToString(deterministic=True)
    path.write_bytes(content)
    write_samples(path.with_suffix(".calib.npz"), *calibration)
    write_samples(path.with_suffix(".test.npz"), *held_out)
    return {
        "file": path.name,
        "description": recipe.description,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "calibration_sha256": _sha256(path.with_suffix(".calib.npz")),
        "test_sha256": _sha256(path.with_suffix(".test.npz")),
        "neurons": sum(sizes.values()),
        "populations": sizes,
        "parameters": sum(
            numpy_helper.to_array(tensor).size for tensor in model.graph.initializer if tensor.name.endswith(COUNTED)
        ),
        "test_accuracy": round(accuracy, 4),
        "silent_fraction": round(sum(silent.values()) / sum(sizes[name] for name in silent), 4),
        "silent": silent,
        "against_pytorch": str(agreement),
        "origin": f"python tests/tools/make_models.py --only {recipe.name}" + (f" --more {again}" if again else ""),
        "license": LICENSE,
    }


def write_manifest(path: Path, entries: dict[str, Entry]) -> None:
    """Write the entries in the order of the recipes."""
    order = {recipe.name: place for place, recipe in enumerate(RECIPES)}
    recipe_of = {name: name.split("-")[0] for name in entries}
    unknown = sorted(name for name in entries if recipe_of[name] not in order)
    if unknown:
        raise SystemExit(f"{path} holds a model that no recipe makes: {', '.join(unknown)}")
    tables = []
    for name in sorted(entries, key=lambda name: (order[recipe_of[name]], name)):
        lines = [f"{key} = {_toml(value)}" for key, value in entries[name].items()]
        tables.append("\n".join([f"[{name}]", *lines, ""]))
    path.write_text("\n".join([MANIFEST_HEADER, *tables]), encoding="utf-8")


def _name(recipe: Recipe, again: int) -> str:
    return f"{recipe.name}-{again}" if again else recipe.name


def _toml(value: str | float | dict[str, int]) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {number}" for key, number in value.items()) + " }"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _shaped(samples: tuple[Floats, Labels], *, images: bool) -> tuple[Floats, Labels]:
    x, labels = samples
    return (shape_as_images(x) if images else x), labels


def main(argv: list[str] | None = None) -> int:
    """Make the models that were asked for."""
    names = [recipe.name for recipe in RECIPES]
    parser = argparse.ArgumentParser(description="Train the networks of models/.")
    parser.add_argument("--only", metavar="NAME", nargs="+", choices=names, default=names)
    parser.add_argument("--into", metavar="DIRECTORY", type=Path, default=DEFAULT_DIRECTORY)
    parser.add_argument("--more", metavar="N", type=int, default=0, help="train each N times from other seeds instead")
    parser.add_argument(
        "--samples", metavar="N", type=int, default=SAMPLES_PER_FILE, help="in each of the two files at most"
    )
    options = parser.parse_args(argv)

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    options.into.mkdir(parents=True, exist_ok=True)
    manifest = options.into / "MANIFEST.toml"
    entries = tomllib.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
    train, test = load_halves()
    for recipe, again in itertools.product(RECIPES, range(1, options.more + 1) if options.more else (0,)):
        if recipe.name in options.only:
            start = time.monotonic()
            entry = make(recipe, train, test, options.into, again=again, samples=options.samples)
            entries[_name(recipe, again)] = entry
            print(
                f"{_name(recipe, again)}: test accuracy {entry['test_accuracy']}, {entry['bytes']} bytes, silent "
                f"{entry['silent']}, {time.monotonic() - start:.0f} s",
                flush=True,
            )
            write_manifest(manifest, entries)
    return 0


if __name__ == "__main__":
    sys.exit(main())
