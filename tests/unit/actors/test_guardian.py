"""The guardian, tried on real processes and real SIGKILLs."""

import os
import signal
import subprocess
import sys
import time

PARENT = """
import subprocess, sys, time
from actors.guardian import guard
handle = guard(grace=0.1)
child = subprocess.Popen([sys.executable, "-c", "import subprocess, sys, time; "
    "g = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True); "
    "print(g.pid, flush=True); time.sleep(600)"], stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline().strip(), handle.pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def test_descendants_end_with_a_parent_that_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    child, grandchild, guardian = map(int, parent.stdout.readline().split())
    try:
        assert alive(child)
        assert alive(grandchild)
        # One reading of the family tree must have happened; the guardian reads it every half second.
        time.sleep(1.2)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        assert until(lambda: not alive(child) and not alive(grandchild) and not alive(guardian))
    finally:
        for pid in (child, grandchild, guardian):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        parent.stdout.close()


def test_strangers_are_left_alone():
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    child, grandchild, guardian = map(int, parent.stdout.readline().split())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert until(lambda: not alive(guardian))
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    for pid in (child, grandchild):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    parent.stdout.close()
