"""All chapters."""

from __future__ import annotations

from programs import of_modules
from programs.documentation import (
    assessments,
    automatic,
    blocks,
    by_hand,
    concurrency,
    context,
    decorators,
    distributed,
    environment,
    faq,
    levels,
    masking,
    multimodal,
    opentelemetry,
    production,
    searching,
    span_model,
    streams,
    trace_model,
)

#: Programs that may run one after another in a process.
TOGETHER = of_modules(
    assessments,
    automatic,
    blocks,
    by_hand,
    concurrency,
    context,
    decorators,
    distributed,
    faq,
    levels,
    masking,
    multimodal,
    opentelemetry,
    production,
    searching,
    span_model,
    streams,
    trace_model,
)
PROGRAMS = of_modules(environment)
PROGRAMS.update(TOGETHER)
ENVIRONMENT = environment.ENVIRONMENT
