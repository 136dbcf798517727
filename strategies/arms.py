"""Arms: several ways to ask one question; an ``Arm`` becomes the ``Draw`` of one item.

Pure: a template is rendered from the item's own prompt and columns. May not draw.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipeline.errors import RequestRejected
from pipeline.prompts import RowFault, compile_template
from pipeline.records import Item
from strategies.base import Draw


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to ask; None and empty: as the job says. ``template``: Jinja over the item's columns and ``prompt``."""

    name: str = "plain"
    template: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    model: str = ""

    def draw(self, item: Item) -> Draw:
        """How ``item`` is asked by this arm.

        Raises:
            RequestRejected: the template cannot be rendered from this item.
        """
        prompt = None
        if self.template is not None:
            columns = json.loads(item.payload)
            try:
                prompt = compile_template(self.template, "template").render({**columns, "prompt": prompt_of(item)})
            except RowFault as fault:
                raise RequestRejected(f"arm {self.name}: {fault}") from None
        return Draw(prompt=prompt, temperature=self.temperature, top_p=self.top_p, min_p=self.min_p, model=self.model)


PLAIN_ARM = Arm()
"""As the job says."""


def prompt_of(item: Item) -> str:
    """What the item asks: its prompt, or the last user turn of its chat."""
    if item.messages is None:
        return item.prompt or ""
    return next((turn.content for turn in reversed(item.messages) if turn.role == "user"), "")
