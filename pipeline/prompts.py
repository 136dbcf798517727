"""From a row's columns to what is asked: the Jinja template, or the chat messages.

Promises: a template is parsed once, and names the columns it needs before any row is read; one row's fault raises
``RowFault`` and nothing else. Owns the template language's settings. May not do I/O.

Rows come from strangers: templates run in Jinja's sandbox, so that neither a value nor a template reaches the process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pipeline.errors import SourceError
from pipeline.records import Message

if TYPE_CHECKING:
    from jinja2 import Template

DEFAULT_TEMPLATE = "{{ prompt }}"
ROLES = ("system", "user", "assistant")


class RowFault(ValueError):
    """One row cannot be asked. Its text goes into that row's dead letter; the other rows go on."""


@dataclass(frozen=True)
class PromptTemplate:
    """A parsed prompt template. ``columns`` are the variables it needs from every row, sorted."""

    text: str
    columns: tuple[str, ...]
    template: Template

    def render(self, values: Mapping[str, Any]) -> str:
        """The prompt of one row.

        Raises:
            RowFault: a needed column is absent or null, an expression failed, or the prompt came out blank.
        """
        try:
            prompt = self.template.render(values)
        except Exception as error:  # an expression runs on the row's own values and may raise anything at all
            nulls = [name for name in self.columns if values.get(name, error) is None]
            hint = f" (null in this row: {', '.join(nulls)})" if nulls else ""
            raise RowFault(f"the prompt template failed: {type(error).__name__}: {error}{hint}") from None
        if not prompt.strip():
            raise RowFault("the prompt is empty")
        return prompt


@lru_cache(maxsize=32)
def compile_template(text: str | None, field: str = "dataset.prompt") -> PromptTemplate:
    """Parse the template in ``field`` of a job; None means ``{{ prompt }}``.

    Raises:
        SourceError: the template has a syntax error, or includes other templates.
    """
    from jinja2 import StrictUndefined, TemplateSyntaxError, meta
    from jinja2.sandbox import SandboxedEnvironment

    text = DEFAULT_TEMPLATE if text is None else text
    # Prompts are not HTML: escaping would put &lt; before the model.
    environment = SandboxedEnvironment(undefined=StrictUndefined, finalize=_printed, autoescape=False)
    try:
        tree = environment.parse(text)
        template = environment.from_string(text)
    except TemplateSyntaxError as error:
        raise SourceError(
            f"{field}: {text!r} is not a Jinja template: {error.message} (line {error.lineno}); mend its syntax"
        ) from None
    if any(True for _ in meta.find_referenced_templates(tree)):
        raise SourceError(f"{field}: {text!r} includes another template; write the prompt in one piece")
    columns = meta.find_undeclared_variables(tree) - environment.globals.keys()
    return PromptTemplate(text, tuple(sorted(columns)), template)


def parse_messages(value: Any, column: str) -> tuple[Message, ...]:
    """Chat messages of one row: a list of {role, content}, or the same as JSON text (a CSV cell can hold no list).

    Further keys of a message are ignored: Arrow gives every struct of a column the same keys, most of them null.

    Raises:
        RowFault: ``value`` has another shape, an unknown role, or nothing to say.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowFault(f"{column}: the text is not a JSON list of messages") from None
    if not isinstance(value, list) or not value:
        raise RowFault(f"{column}: must be a non-empty list of messages, not {_kind(value)}")
    messages = tuple(_message(part, f"{column}[{position}]") for position, part in enumerate(value))
    if not any(message.content.strip() for message in messages):
        raise RowFault(f"{column}: every message is empty")
    return messages


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise RowFault(f"{where}: must be an object with role and content, not {_kind(value)}")
    role, content = value.get("role"), value.get("content")
    if role not in ROLES:
        raise RowFault(f"{where}.role: must be one of {', '.join(ROLES)}, not {str(role)[:40]!r}")
    if not isinstance(content, str):
        raise RowFault(f"{where}.content: must be text, not {_kind(content)}")
    return Message(role, content)


def _printed(value: Any) -> Any:
    # Jinja would print None as the word "None", and a model would be asked about it.
    if value is None:
        raise TypeError("it prints a null")
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return f"an empty {type(value).__name__}" if value in ([], {}) else f"{type(value).__name__} {str(value)[:40]!r}"
