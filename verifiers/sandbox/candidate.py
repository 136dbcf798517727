"""The candidate's process: it holds the program and never sees a test.

Runs inside a jail, after ``jail.enter``. Two ways: ``serve_calls`` answers the referee's calls of the program's
functions, ``run_script`` runs the program from standard input to standard output. Nothing here is trusted once the
program runs: the program can change this code and write what it likes into its pipes. All it can say thereby is what
its functions return.
"""

from __future__ import annotations

import atexit
import builtins
import json
import os
import random
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .plain import Hangup, NotPlain, dumps, loads, receive, send

SEED = 0
"""Every check starts with the same random state: a verdict is the same when it is asked for again."""
MAX_TEXT = 300
_ERROR_CODE = 1


def serve_calls(job: int, calls: int, replies: int) -> None:
    """Run the program ``job`` holds as a module, then answer calls until the referee hangs up."""
    program = read_all(job).decode("utf-8", "surrogatepass")
    os.close(job)
    random.seed(SEED)
    module = _fresh_module("candidate")
    try:
        exec(compile(program, "<candidate>", "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - what it is for
    except BaseException as error:
        _say(replies, {"raised": _describe(error)})
        return
    send(replies, dumps({"ready": True}))
    functions: dict[str, Any] = {}
    while True:
        try:
            call = loads(receive(calls))
        except Hangup:
            return
        name = call["name"]
        if name not in functions:
            functions[name] = module.__dict__.get(name, getattr(builtins, name, None))
        _say(replies, _answer(functions[name], call))


def run_script(job: int, report: int) -> int:
    """Run the program as ``__main__`` on this process's own streams; its exit code. ``report`` takes an error."""
    program = read_all(job).decode("utf-8", "surrogatepass")
    os.close(job)
    random.seed(SEED)
    sys.stdin = os.fdopen(0, "r", encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    printed = sys.stdout
    module = _fresh_module("__main__")

    def run() -> None:
        exec(compile(program, "<candidate>", "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - what it is for

    code = _guarded(report, run)
    # What an interpreter does as it ends, in its order.
    for ending in (threading._shutdown, atexit._run_exitfuncs, lambda: sys.stdout.flush(), printed.flush):  # type: ignore[attr-defined]
        code = _guarded(report, ending) or code
    return code


def read_all(fd: int) -> bytes:
    """What a job's file holds."""
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _fresh_module(name: str) -> ModuleType:
    module = ModuleType(name)
    sys.modules[name] = module
    sys.argv = ["candidate.py"]
    return module


def _guarded(report: int, run: Callable[[], object]) -> int:
    try:
        run()
    except SystemExit as left:
        if left.code is None:
            return 0
        return left.code & 0xFF if isinstance(left.code, int) else _ERROR_CODE
    except BaseException as error:
        said = _describe(error)
        os.write(report, json.dumps(f"{said['names'][0]}: {said['text']}"[:MAX_TEXT]).encode())
        return _ERROR_CODE
    return 0


def _answer(function: Any, call: dict[str, Any]) -> dict[str, Any]:
    positional, named = call["args"], call["kwargs"]
    before = dumps([positional, named])
    try:
        # There and back at once: an iterator can be read only once, and reading it runs the program.
        reply = {"value": loads(dumps(function(*positional, **named)))}
    except NotPlain as error:
        return {"misfit": str(error)}
    except BaseException as error:
        return {"raised": _describe(error)}
    try:
        if dumps([positional, named]) != before:
            reply["changed"] = [positional, named]
    except BaseException:
        # What it made of its arguments cannot be carried: they stay as they were.
        return reply
    return reply


def _say(replies: int, reply: dict[str, Any]) -> None:
    try:
        data = dumps(reply)
    except NotPlain as error:
        data = dumps({"misfit": str(error)})
    send(replies, data)


def _describe(error: BaseException) -> dict[str, Any]:
    """An exception as plain data: the names of its classes, nearest first, its arguments where plain, and its text."""
    names = [kind.__name__ for kind in type(error).__mro__]
    try:
        text = str(error)[:MAX_TEXT]
    except BaseException:
        text = ""
    arguments = list(error.args) if isinstance(error.args, tuple) else []
    try:
        if len(dumps(arguments)) > MAX_TEXT * 10:
            arguments = [text]
    except BaseException:
        arguments = [text]
    return {"names": names, "arguments": arguments, "text": text}
