"""Certificates of finished jobs: what the checker needs to know is gathered here and handed over."""

from __future__ import annotations

from dataclasses import replace

from snn_optimizer.certificates import issue
from snn_optimizer.execution import Session
from snn_optimizer.execution.source import ModelSource
from snn_optimizer.ir import InputDomain, SNNGraph
from snn_optimizer.job import Job, Model, dataset_of, proto_of, run_job
from snn_optimizer.passes import registry
from snn_optimizer.passes.base import Exactness
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.pipeline.presets import expand
from snn_optimizer.pipeline.spec import Element, GroupSpec, PassSpec, Pipeline, parse
from snn_optimizer.premises import widened

__all__ = ["certify"]


def certify(model: ModelSource, result: SNNGraph, job: Job, written: ModelSource | None = None) -> str:
    """Return the text of the certificate of a job.

    Parameters
    ----------
    model : path, bytes or ModelProto
        What was optimized.
    result : SNNGraph
        What :func:`~snn_optimizer.job.run_job` made of it.
    job : Job
    written : path, optional
        Where the result was saved; needed where its weights lie in a file of their own.
    """
    session = Session(model)
    data = dataset_of(job.calibration, session, "calibration")
    domain = widened(job.domain, data, [])  # as the job does: proofs cover the data

    def raised() -> ModelSource:
        return proto_of(_raised(model, job, domain))

    return issue(
        model,
        result.to_onnx() if written is None else written,
        left=result.unit_origins,
        domain=domain,
        raised=raised,
        data=data,
        pipeline=job.pipeline,
        seed=job.seed,
    )


def _raised(model: Model, job: Job, domain: InputDomain) -> SNNGraph:
    """Return the model after the passes of the job that keep every bit: the form in which units are cut."""
    text = str(Pipeline(_bitwise(expand(parse(job.pipeline)).elements)))
    plain = replace(
        job, pipeline=text, calibration=None, test=None, profile=None, budget=Budget(), domain=domain,
        verify=False, verify_each=False, min_calibration=0, instruments=(), progress=None,
    )  # fmt: skip
    return run_job(model, plain)[0]


def _bitwise(elements: tuple[Element, ...]) -> tuple[Element, ...]:
    found: list[Element] = []
    for element in elements:
        if isinstance(element, GroupSpec):
            body = _bitwise(element.body)
            if body:
                found.append(replace(element, body=body))
        elif isinstance(element, PassSpec):
            if registry.create(element.name, dict(element.options)).exactness is Exactness.BITWISE:
                found.append(element)
        else:
            found.append(element)
    return tuple(found)
