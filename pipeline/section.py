"""The base of every section of a job file. Pydantic only; kinds of verifiers defined elsewhere build on it too."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of every section: immutable, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
