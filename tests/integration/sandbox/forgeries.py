"""Ways to pass tests with a wrong program, as data. Standard library only.

Every ``code`` is to define ``f``; unless it says otherwise the test is ``assert f(2) == 5`` and no ``f`` here computes
that. ``harness`` names the naive harness (see ``naive.py``) that it deceives.
"""

from __future__ import annotations

from dataclasses import dataclass

TESTS = "assert f(2) == 5"
_WRONG = "def f(x):\n    return None\n"


@dataclass(frozen=True)
class Forgery:
    name: str
    code: str
    harness: str = "exit"
    tests: str = TESTS


def _yes(base: str, make: str) -> str:
    return (
        f"class Yes({base}):\n    def __eq__(self, other):\n        return True\n"
        "    def __ne__(self, other):\n        return False\n    def __hash__(self):\n        return 0\n"
        f"def f(x):\n    return {make}\n"
    )


_FIND = "import re\ndef found(text):\n    return int(re.search(r'f\\(2\\) == (\\d+)', text)[1])\n"

FORGERIES = [
    Forgery("sys.exit at import", "import sys\nsys.exit(0)\n"),
    Forgery("sys.exit in the call", "import sys\ndef f(x):\n    sys.exit(0)\n"),
    Forgery("os._exit at import", "import os\nos._exit(0)\n"),
    Forgery("os._exit in the call", "import os\ndef f(x):\n    os._exit(0)\n"),
    Forgery("exit by fork", "import os\ndef f(x):\n    if os.fork():\n        os._exit(0)\n    os._exit(1)\n"),
    Forgery("replace the process", "import os, sys\ndef f(x):\n    os.execv(sys.executable, ['python', '-c', ''])\n"),
    Forgery("atexit", f"import atexit, os\natexit.register(os._exit, 0)\n{_WRONG}"),
    Forgery(
        "excepthook",
        f"import os, sys\nsys.excepthook = lambda *_: os._exit(0)\n{_WRONG}",
    ),
    Forgery(
        "a thread that stays",
        "import os, threading\ndef wait():\n    threading.main_thread().join()\n    os._exit(0)\n"
        f"threading.Thread(target=wait).start()\n{_WRONG}",
    ),
    Forgery(
        "a destructor",
        "import os\nclass Last:\n    def __del__(self):\n        os._exit(0)\nlast = Last()\n" + _WRONG,
    ),
    Forgery("equal to everything", _yes("object", "Yes()")),
    Forgery("an int equal to everything", _yes("int", "Yes(7)")),
    Forgery("a str equal to everything", _yes("str", "Yes('7')"), tests="assert f(2) == 'five'"),
    Forgery("a list equal to everything", _yes("list", "Yes([7])"), tests="assert f(2) == [5]"),
    Forgery("a float equal to everything", _yes("float", "Yes(7.5)"), tests="assert f(2) == 5.0"),
    Forgery("a list with such an int", _yes("int", "[Yes(1), Yes(2)]"), tests="assert f(2) == [5, 6]"),
    Forgery("a dict with such keys", _yes("int", "{Yes(1): Yes(2)}"), tests="assert list(f(2).items()) == [(5, 6)]"),
    Forgery(
        "a difference that is nothing",
        "class Zero(float):\n    def __sub__(self, other):\n        return 0.0\n    __rsub__ = __sub__\n"
        "def f(x):\n    return Zero(9)\n",
        tests="assert abs(f(2) - 5.0) < 1e-6",
    ),
    Forgery(
        "patched builtins",
        "import builtins\nbuiltins.abs = lambda x: 0\ndef f(x):\n    return 9\n",
        tests="assert abs(f(2) - 5) < 1",
    ),
    Forgery("patched exec", f"import builtins\nbuiltins.exec = lambda *_: None\n{_WRONG}"),
    Forgery(
        "patched comparison by trace",
        "import sys\ndef trace(frame, event, arg):\n    frame.f_trace_opcodes = False\n    return trace\n"
        "import builtins\nbuiltins.all = lambda *_: True\ndef f(x):\n    return 9\n",
        tests="assert all([f(2) == 5, f(3) == 6])",
    ),
    Forgery(
        "another module of that name",
        "import sys, types\nfake = types.ModuleType('math')\nfake.isclose = lambda *_: True\n"
        "sys.modules['math'] = fake\ndef f(x):\n    return 9.0\n",
        tests="import math\nassert math.isclose(f(2), 5.0)",
    ),
    Forgery(
        "an import hook",
        "import builtins, types\nreal = builtins.__import__\n"
        "def hook(name, *rest):\n    fake = types.ModuleType(name)\n    fake.isclose = lambda *_: True\n"
        "    return fake if name == 'cmath' else real(name, *rest)\n"
        "builtins.__import__ = hook\ndef f(x):\n    return 9.0\n",
        tests="import cmath\nassert cmath.isclose(f(2), 5.0)",
    ),
    Forgery(
        "another reference after the first call",
        "def f(x):\n    globals()['reference'] = lambda x: None\n",
        tests="def reference(x):\n    return x + 3\nassert f(2) == reference(2)",
    ),
    Forgery(
        "another entry point after the first call",
        "class Same:\n    pass\nsame = Same()\ndef f(x):\n    globals()['f'] = lambda x: same\n    return same\n",
        tests="assert f(2) == f(3)\nassert repr(type(f(2))) == repr(type(f(2)))",
    ),
    Forgery(
        "the end of an iteration as an exception",
        "def f(x):\n    raise StopIteration\n",
        tests="assert all(map(f, [2, 3]))",
    ),
    Forgery(
        "an exception that ends the process",
        "import os\nclass Bomb(Exception):\n    def __str__(self):\n        os._exit(0)\ndef f(x):\n    raise Bomb()\n",
    ),
    Forgery(
        "an exception of a class that is any",
        "class Meta(type):\n    def __instancecheck__(self, other):\n        return True\n"
        "class Expected(ValueError, metaclass=Meta):\n    pass\n"
        "def f(x):\n    raise Expected(5)\n",
        tests="try:\n    got = f(2)\nexcept ValueError as error:\n    got = isinstance(KeyError(), type(error))\n"
        "assert got is True",
    ),
    Forgery("printed PASS", "import os\nprint('PASS', flush=True)\nos._exit(0)\n", "print"),
    Forgery("printed PASS at the end", f"import atexit\natexit.register(print, 'PASS')\n{_WRONG}", "print"),
    Forgery(
        "PASS on every descriptor",
        "import os\nfor fd in range(64):\n    try:\n        os.write(fd, b'PASS\\n')\n"
        "    except OSError:\n        pass\nos._exit(0)\n",
        "pipe",
    ),
    Forgery(
        "messages on every descriptor",
        "import json, os\n"
        "for said in ({'ready': True}, {'value': True}, {'passed': 1, 'first': None}):\n"
        "    data = json.dumps({'dict': [[k, v] for k, v in said.items()]}).encode()\n"
        "    plain = json.dumps(said).encode()\n"
        "    for fd in range(3, 64):\n"
        "        for part in (b'PASS\\n', len(data).to_bytes(4, 'big') + data, plain):\n"
        "            try:\n                os.write(fd, part)\n            except OSError:\n                pass\n"
        "os._exit(0)\n",
        "pipe",
    ),
    Forgery(
        "patched write", f"import os\nreal = os.write\nos.write = lambda fd, _: real(fd, b'PASS')\n{_WRONG}", "pipe"
    ),
    Forgery("patched json", f"import json\njson.dumps = lambda *_, **__: '{{\"passed\": true}}'\n{_WRONG}", "json"),
    Forgery(
        "patched harness",
        "import sys\nfor module in list(sys.modules.values()):\n"
        "    for name in ('_run', '_same', '_tell', 'judge', 'report', '_cases'):\n"
        "        if hasattr(module, name):\n            setattr(module, name, lambda *_: print('{\"passed\": true}'))\n"
        + _WRONG,
        "json",
    ),
    Forgery(
        "tests in a caller's frame",
        _FIND + "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for value in frame.f_locals.values():\n"
        "            if isinstance(value, str) and 'assert f(2)' in value:\n                return found(value)\n"
        "        frame = frame.f_back\n",
    ),
    Forgery(
        "tests among all objects",
        _FIND + "import gc\ndef f(x):\n    for holder in gc.get_objects():\n"
        "        values = holder.values() if type(holder) is dict else holder if type(holder) is list else ()\n"
        "        for value in list(values):\n"
        "            if type(value) is str and 'assert f(2) ==' in value:\n                return found(value)\n",
    ),
    Forgery(
        "tests in memory",
        _FIND + "import re\ndef f(x):\n    want = b'assert ' + b'f(2) == '\n"
        "    with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:\n"
        "        for line in maps:\n            begin, end = (int(one, 16) for one in line.split()[0].split('-'))\n"
        "            if 'rw' not in line or end - begin > 64 << 20:\n                continue\n"
        "            memory.seek(begin)\n"
        "            try:\n                hit = re.search(re.escape(want) + rb'(\\d+)', memory.read(end - begin))\n"
        "            except OSError:\n                continue\n"
        "            if hit:\n                return int(hit[1])\n",
    ),
    Forgery(
        "tests on the disk",
        _FIND + "import os\ndef f(x):\n    for folder in ('.', '/tmp', '/harness'):\n"
        "        for here, _, names in os.walk(folder):\n            for name in names:\n"
        "                try:\n                    text = open(os.path.join(here, name)).read(9999)\n"
        "                except (OSError, ValueError):\n                    continue\n"
        "                if 'assert f(2) ==' in text:\n                    return found(text)\n",
    ),
    Forgery(
        "tests in open files",
        _FIND + "import os\ndef f(x):\n    for fd in range(64):\n"
        "        try:\n            text = os.pread(fd, 9999, 0).decode(errors='replace')\n"
        "        except OSError:\n            continue\n"
        "        if 'assert f(2) ==' in text:\n            return found(text)\n",
    ),
]
