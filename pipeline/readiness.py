"""Can this job's verifiers work here? Asked by ``run`` and ``plan`` before anything is spent.

Loads the verifiers' code, starts nothing. Where the cluster is elsewhere (``RAY_ADDRESS``) this machine says nothing of
it: the verifiers' actors are then the first to tell.
"""

from __future__ import annotations

import os

from pipeline.spec import JobSpec


def refuse_unready(spec: JobSpec) -> None:
    """Make every verifier of the job once.

    Raises:
        SpecError: one cannot be made here: a sandbox this machine does not allow, a function that cannot be imported.
    """
    if not spec.verifiers or os.environ.get("RAY_ADDRESS"):
        return
    from verifiers.registry import make_verifier

    for section in spec.verifiers:
        make_verifier(section, spec.answer)
