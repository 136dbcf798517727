"""Harnesses without a sandbox, as they are found in the wild: what every attack must first defeat.

Run as a script, in a process of its own: ``naive.py HARNESS`` with the program and the tests as JSON on standard input.
The verdict is read by ``deceived``. Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

SECONDS = 60


def deceived(harness: str, code: str, tests: str) -> bool:
    """Does this harness say that ``code`` passes ``tests``? In a folder of its own, which holds the tests' file."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "tests.py")
        with open(file, "w") as written:
            written.write(tests)
        ours, theirs = os.pipe()
        with open(file) as kept:
            done = subprocess.run(
                [sys.executable, "-S", __file__, harness, str(theirs)],
                input=json.dumps({"code": code, "tests": tests}).encode(),
                capture_output=True,
                cwd=folder,
                pass_fds=(theirs, kept.fileno()),
                timeout=SECONDS,
                check=False,
            )
        os.close(theirs)
        said = os.read(ours, 65_536)
        os.close(ours)
    if harness == "exit":
        return done.returncode == 0
    if harness == "print":
        return b"PASS" in done.stdout
    if harness == "json":
        lines = done.stdout.splitlines()
        return bool(lines) and json.loads(lines[-1])["passed"]
    return b"PASS" in said


def report(harness: str, passed: bool, fd: int) -> None:
    if harness == "print" and passed:
        print("PASS")
    elif harness == "json":
        print(json.dumps({"passed": passed}))
    elif harness == "pipe":
        os.write(fd, b"PASS" if passed else b"FAIL")


def judge(harness: str, job: dict[str, str], fd: int) -> None:
    space: dict[str, object] = {"__name__": "program"}
    tests = job["tests"]
    # Harnesses keep what they run.
    kept = [tests, space]
    try:
        exec(job["code"], space)
        exec(tests, space)
    except Exception:
        if harness == "exit":
            raise
        report(harness, False, fd)
    else:
        report(harness, True, fd)
    kept.clear()


if __name__ == "__main__":
    judge(sys.argv[1], json.load(sys.stdin), int(sys.argv[2]))
