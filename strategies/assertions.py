"""Assertions a model wrote: the prompt that asks for them, and what of a reply can be run.

Replies are hostile text: they are parsed with ``ast`` and never run here, bounded in number, length and depth, and
written anew from their syntax trees. What is left is one assert statement each that calls a function by a name which is
no builtin's; whether it is right nobody knows. Pure.

Not covered: an assertion that holds for any program (``f(1) == f(1)``), or that does harm: it runs in a sandbox.
"""

from __future__ import annotations

import ast
import builtins
import json
import warnings
from collections.abc import Iterator

from pipeline.errors import RequestRejected
from pipeline.prompts import RowFault, compile_template
from pipeline.records import Item
from strategies.arms import prompt_of

TEMPLATE = """{{ question }}

Do not solve this. Write {{ count }} test cases for the function it asks for: one Python assert statement a line, each
of which calls the function with other arguments, written out, and compares with the value it must return. Cover
ordinary and edge cases. Write nothing else.
"""
"""For models that follow instructions. The paper's own is for those that complete code: the prompt, ``pass``, a comment
``# check the correctness of NAME`` and ``assert`` (Chen et al. 2022, §2.1), after which the reply goes on."""
MAX_REPLY = 20_000
"""Characters of a reply that are read."""
MAX_LENGTH = 500
"""Characters of one assertion."""
MAX_LINES = 4
"""Lines one assertion may take."""
TRIES = 4
"""Lines that begin like an assertion, for each one wanted: parsing what cannot be parsed costs time too."""
_KEYWORD = "assert"


def asking(template: str | None, item: Item, count: int) -> str:
    """The prompt that asks for ``count`` assertions.

    Raises:
        RequestRejected: the template cannot be rendered from this item.
    """
    columns = json.loads(item.payload)
    values = {**columns, "prompt": prompt_of(item), "question": prompt_of(item).strip(), "count": count}
    try:
        return compile_template(template if template is not None else TEMPLATE).render(values)
    except RowFault as fault:
        raise RequestRejected(f"the template that asks for tests: {fault}") from None


def assertions(prompt: str, reply: str, most: int) -> list[str]:
    """The first ``most`` assertions of a reply, without their messages. One that begins in the prompt counts."""
    text = reply[:MAX_REPLY]
    if prompt.rstrip().endswith(_KEYWORD):
        text = f"{_KEYWORD} {text.lstrip()}"
    lines = text.split("\n")
    found: list[str] = []
    tries = TRIES * most
    at = 0
    while at < len(lines) and len(found) < most and tries > 0:
        if not lines[at].lstrip().startswith(_KEYWORD):
            at += 1
            continue
        tries -= 1
        taken, assertion = _at(lines[at : at + MAX_LINES])
        at += taken
        if assertion is not None:
            found.append(assertion)
    return found


def calls(assertion: str) -> list[str]:
    """The calls an assertion makes of functions under test, outermost first, as expressions; those on variables not."""
    found = [ast.unparse(call) for call in _calls(ast.parse(assertion)) if _stands_alone(call)]
    return [call for call in found if _parsed(call) is not None]


def _at(lines: list[str]) -> tuple[int, str | None]:
    """How many lines were read, and the assertion they hold."""
    for count in range(1, len(lines) + 1):
        # Models break the line after the keyword, too.
        for glue in ("\n", " "):
            statement = _parsed(glue.join(lines[:count]).strip())
            if statement is not None:
                return count, _written(statement)
    return 1, None


def _parsed(source: str) -> ast.stmt | None:
    if len(source) > MAX_LENGTH:
        return None
    try:
        with warnings.catch_warnings():
            # What Python thinks of a model's style is nobody's news.
            warnings.simplefilter("ignore")
            body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return body[0] if len(body) == 1 else None


def _written(statement: ast.stmt) -> str | None:
    if not isinstance(statement, ast.Assert):
        return None
    # A tuple is true whatever is in it: parentheses around condition and message.
    if isinstance(statement.test, ast.Tuple):
        return None
    try:
        if next(_calls(statement.test), None) is None:
            return None
        written = ast.unparse(ast.Assert(test=statement.test, msg=None))
    except RecursionError:
        return None
    # What is written anew need not parse again: strings within strings.
    return written if isinstance(_parsed(written), ast.Assert) else None


def _stands_alone(call: ast.Call) -> bool:
    """Are all its names functions?"""
    called = {id(node.func) for node in ast.walk(call) if isinstance(node, ast.Call)}
    names = (node for node in ast.walk(call) if isinstance(node, ast.Name) and not hasattr(builtins, node.id))
    return all(id(name) in called for name in names)


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not hasattr(builtins, node.func.id):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        yield from _calls(child)
