"""Settings of what is shared, as processes tell each other of them."""

from __future__ import annotations

from pydantic.dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """Where an engine publishes its commits, and how often at most.

    `label` names the engine to people. Nothing more is computed while `outbox_bytes` wait. With
    `has_logs` what is archived is published, too.
    """

    uri: str
    every_s: float
    outbox_bytes: int
    label: str
    has_logs: bool = False
