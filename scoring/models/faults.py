"""What a call of a model can come to beside a result: it raised, or its process stopped.

Both say something of the rows that it was given, so they are no `ScoringError`: whoever calls the
model with fewer rows may find the one that does it (see `scoring.pipeline.isolate`).
"""

from __future__ import annotations

from scoring import telemetry

SAID_LENGTH = 300
"""Characters of somebody else's message that are kept."""


class ModelRaised(Exception):
    """The model raised something that is told by name: it came from another process, or it was
    an exit or an interrupt that nobody but the model asked for."""

    def __init__(self, kind: str, said: str) -> None:
        super().__init__(kind, said)
        self.kind, self.said = kind, said

    def __str__(self) -> str:
        return f"the model raised {self.kind}: {self.said}"

    @classmethod
    def of(cls, error: BaseException) -> ModelRaised:
        """The same as a text that can be kept anywhere."""
        return error if isinstance(error, ModelRaised) else cls(type(error).__name__, said(error))


class ModelStopped(Exception):
    """The model's own process died, or was silent for too long, while it had these rows."""

    def __init__(self, how: str, silent: bool) -> None:
        super().__init__(how, silent)
        self.how, self.silent = how, silent

    def __str__(self) -> str:
        return f"{self.how} on this row"


def said(error: BaseException) -> str:
    """The first line of what an error says, on one line, without what no text may hold."""
    try:
        text = str(error)
    except Exception as worse:
        return f"its message cannot be shown, that raises {type(worse).__name__}"
    lines = text.strip().splitlines()
    return telemetry.on_one_line(lines[0][:SAID_LENGTH]) if lines else "without a message"
