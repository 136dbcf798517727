"""Ways out of a sandbox, as data. Each is bounded and harmless where it succeeds.

``code`` defines ``attack(world)``, which returns something true where the attack succeeded; ``world`` is what
``world.py`` sets up for it to find. Standard library only: the suite also runs as another user with another Python.
"""

from __future__ import annotations

from dataclasses import dataclass

_LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"


@dataclass(frozen=True)
class Attack:
    """``root``: outside the sandbox only root can do it. ``kernel``: not every kernel lets anybody do it."""

    name: str
    code: str
    root: bool = False
    kernel: bool = False


def _attack(name: str, body: str, before: str = "import os", root: bool = False, kernel: bool = False) -> Attack:
    lines = "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
    return Attack(name, f"{before}\ndef attack(world):\n{lines}", root, kernel)


NETWORK = [
    _attack(
        "tcp",
        "with socket.create_connection(('127.0.0.1', world['tcp']), 5) as s:\n    return s.recv(5) == b'hello'",
        "import socket",
    ),
    _attack(
        "udp",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.settimeout(5)\ns.sendto(b'x', ('127.0.0.1', world['udp']))\nreturn s.recv(5) == b'hello'",
        "import socket",
    ),
    _attack(
        "unix socket",
        "s = socket.socket(socket.AF_UNIX)\ns.connect(world['unix'])\nreturn s.recv(5) == b'hello'",
        "import socket",
    ),
    _attack(
        "abstract socket",
        "s = socket.socket(socket.AF_UNIX)\ns.connect('\\0' + world['abstract'])\nreturn s.recv(5) == b'hello'",
        "import socket",
    ),
    _attack("listen", "s = socket.socket()\ns.bind(('0.0.0.0', 0))\ns.listen()\nreturn True", "import socket"),
    _attack("netlink", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\nreturn True", "import socket"),
]

FILES = [
    _attack("read a private file", "return open(world['secret']).read() == world['word']"),
    _attack("read /etc/shadow", "return 'root' in open('/etc/shadow').read()", root=True),
    _attack("read /etc/passwd", "return 'root' in open('/etc/passwd').read()"),
    _attack("read the project", "return 'pyproject.toml' in os.listdir(world['project'])"),
    _attack(
        "import an installed package",
        "sys.path += world['packages']\nimport pytest\nreturn bool(pytest.__file__)",
        "import sys",
    ),
    _attack("write outside", "open(os.path.join(world['folder'], 'left'), 'w').write('x')\nreturn True"),
    _attack(
        "write in the root folder",
        "name = '/' + world['word']\nopen(name, 'w').close()\nos.unlink(name)\nreturn True",
        root=True,
    ),
    _attack(
        "write beside the interpreter",
        "name = os.path.join(os.path.dirname(os.__file__), world['word'])\n"
        "open(name, 'w').close()\nos.unlink(name)\nreturn True",
        root=True,
    ),
    _attack("open core_pattern", "open('/proc/sys/kernel/core_pattern', 'r+').close()\nreturn True", root=True),
    _attack("read the kernel's state", "return bool(open('/proc/self/mountinfo').read())"),
    _attack("look into /run and /sys", "return bool(os.listdir('/run') + os.listdir('/sys'))"),
    _attack("open the kernel's log", "os.close(os.open('/dev/kmsg', os.O_WRONLY))\nreturn True", root=True),
    _attack("make a device", "os.mknod('null', 0o20666, os.makedev(1, 3))\nreturn True", root=True),
]

ENVIRONMENT = [
    _attack("read a variable", "return os.environ.get(world['variable']) == world['word']"),
    _attack("read the first environment", "return world['word'] in open('/proc/self/environ').read()"),
    _attack(
        "read another's environment",
        "return world['word'] in open(f\"/proc/{world['victim']}/environ\").read()",
    ),
]

PROCESSES = [
    _attack("signal the parent", "parent = os.getppid()\nos.kill(parent, 0)\nreturn parent > 0"),
    _attack("signal a stranger", "os.kill(world['victim'], 0)\nreturn True"),
    _attack("signal everybody", "os.kill(-1, 0)\nreturn True"),
    _attack("slow a stranger down", "os.setpriority(os.PRIO_PROCESS, world['victim'], 3)\nreturn True"),
    _attack("open a stranger", "return os.pidfd_open(world['victim']) > 0"),
    _attack(
        "ptrace",
        "held = libc.ptrace(0x4206, world['victim'], 0, 0) == 0\n"
        "held and libc.ptrace(17, world['victim'], 0, 0)\nreturn held",
        _LIBC,
        kernel=True,
    ),
    _attack(
        "process_vm_readv",
        "buffer = ctypes.create_string_buffer(len(world['word']))\n"
        "class Part(ctypes.Structure):\n"
        "    _fields_ = [('base', ctypes.c_void_p), ('size', ctypes.c_size_t)]\n"
        "mine = Part(ctypes.addressof(buffer), len(world['word']))\n"
        "theirs = Part(world['address'], len(world['word']))\n"
        "libc.process_vm_readv(world['victim'], ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)\n"
        "return buffer.raw.decode() == world['word']",
        _LIBC,
        kernel=True,
    ),
    _attack(
        "read a stranger's memory",
        "with open(f\"/proc/{world['victim']}/mem\", 'rb') as memory:\n"
        "    memory.seek(world['address'])\n"
        "    return memory.read(len(world['word'])).decode() == world['word']",
        kernel=True,
    ),
    _attack(
        "write to every descriptor",
        "took = 0\nfor fd in range(3, 64):\n"
        "    try:\n        took += os.write(fd, b'x') if fd == world['fd'] else 0\n    except OSError:\n        pass\n"
        "return took",
    ),
]

KERNEL = [
    _attack("user namespace", "return libc.unshare(0x10000000) == 0", _LIBC, kernel=True),
    _attack(
        "clone a user namespace",
        _CLONE := (
            "pid = libc.syscall(56 if os.uname().machine == 'x86_64' else 220, 0x10000000 | 17, 0, 0, 0, 0)\n"
            "if pid == 0:\n    os._exit(0)\n"
            "return pid > 0 and os.waitpid(pid, 0)[0] == pid"
        ),
        _LIBC,
        kernel=True,
    ),
    _attack(
        "mount",
        "return libc.unshare(0x20000) == 0 and libc.mount(b'none', b'/tmp', b'tmpfs', 0, 0) == 0",
        _LIBC,
        root=True,
    ),
    _attack("chroot", "os.chroot('/')\nreturn True", root=True),
    _attack(
        "host name",
        "return libc.sethostname(os.uname().nodename.encode(), len(os.uname().nodename)) == 0",
        _LIBC,
        root=True,
    ),
    _attack(
        "keyring",
        "return libc.syscall(250 if os.uname().machine == 'x86_64' else 219, 0, -2, 1) > 0",
        _LIBC,
        kernel=True,
    ),
    _attack(
        "io_uring",
        "buffer = ctypes.create_string_buffer(256)\nreturn libc.syscall(425, 4, buffer) >= 0",
        _LIBC,
        kernel=True,
    ),
    _attack(
        "bpf",
        "buffer = ctypes.create_string_buffer(128)\nbuffer[0:16] = (2).to_bytes(4, 'little') + "
        "(4).to_bytes(4, 'little') * 2 + (1).to_bytes(4, 'little')\n"
        "return libc.syscall(321 if os.uname().machine == 'x86_64' else 280, 0, buffer, 128) >= 0",
        _LIBC,
        root=True,
        kernel=True,
    ),
    _attack("personality", "return libc.personality(0xFFFFFFFF) >= 0", _LIBC),
    _attack("become root", "os.setuid(0)\nreturn True", root=True),
]

RESOURCES = [
    _attack(
        "fork bomb",
        "born = []\n"
        "try:\n"
        "    for _ in range(40):\n"
        "        pid = os.fork()\n"
        "        if pid == 0:\n            time.sleep(30)\n            os._exit(0)\n"
        "        born.append(pid)\n"
        "except OSError:\n    pass\n"
        "for pid in born:\n    os.kill(pid, 9)\n    os.waitpid(pid, 0)\n"
        "return len(born) > 20",
        "import os, time",
    ),
    _attack(
        "thread bomb",
        "stop = threading.Event()\nborn = []\n"
        "try:\n"
        "    for _ in range(40):\n"
        "        born.append(threading.Thread(target=stop.wait, daemon=True))\n        born[-1].start()\n"
        "except RuntimeError:\n    born.pop()\n"
        "stop.set()\nreturn len(born) > 20",
        "import threading",
    ),
    _attack("memory bomb", "return len(bytearray(1200 << 20)) > 0", ""),
    _attack("memory bomb by mmap", "return len(mmap.mmap(-1, 1200 << 20)) > 0", "import mmap"),
    _attack(
        "memory bomb of many",
        "ends = []\n"
        "for _ in range(4):\n"
        "    ours, theirs = os.pipe()\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        try:\n            data = bytearray(300 << 20)\n            os.write(theirs, b'x')\n"
        "        finally:\n            os._exit(0)\n"
        "    os.close(theirs)\n    ends.append(ours)\n    os.waitpid(pid, 0)\n"
        "return sum(len(os.read(end, 1)) for end in ends) == 4",
    ),
    _attack(
        "memory in a nameless file",
        "fd = os.memfd_create('x')\nos.truncate(fd, 1200 << 20)\nreturn os.fstat(fd).st_size > 0",
    ),
    _attack(
        "System V memory",
        "got = libc.shmget(0, 100 << 20, 0o1600)\ngot >= 0 and libc.shmctl(got, 0, 0)\nreturn got >= 0",
        _LIBC,
    ),
    _attack(
        "fill the disk",
        "name = os.path.join(world['folder'] if os.path.isdir(world['folder']) else '/tmp', 'fill')\n"
        "try:\n"
        "    with open(name, 'wb') as file:\n        wrote = sum(file.write(bytes(1 << 20)) for _ in range(48))\n"
        "finally:\n    os.unlink(name)\n"
        "return wrote == 48 << 20",
    ),
    _attack(
        "fill it with small files",
        "folder = world['folder'] if os.path.isdir(world['folder']) else '/tmp'\n"
        "names = [os.path.join(folder, f'small{i}') for i in range(3000)]\n"
        "for name in names:\n    open(name, 'w').close()\n"
        "for name in names:\n    os.unlink(name)\n"
        "return True",
    ),
    _attack(
        "many descriptors", "held = [os.open('/dev/null', os.O_RDONLY) for _ in range(200)]\nreturn len(held) == 200"
    ),
]

ATTACKS = [*NETWORK, *FILES, *ENVIRONMENT, *PROCESSES, *KERNEL, *RESOURCES]

STUCK = {
    "busy loop": "def attack(world):\n    while True:\n        pass\n",
    "one long operation": "def attack(world):\n    return 7 ** (10 ** 10) > 0\n",
    "sleep": "import time\ndef attack(world):\n    time.sleep(600)\n",
    "at import": "import time\ntime.sleep(600)\ndef attack(world):\n    return 1\n",
    "deaf to SIGTERM": (
        "import signal, time\nfor one in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGXCPU):\n"
        "    signal.signal(one, signal.SIG_IGN)\n"
        "def attack(world):\n    while True:\n        time.sleep(60)\n"
    ),
    "stopped": "import os, signal\ndef attack(world):\n    os.kill(os.getpid(), signal.SIGSTOP)\n    signal.pause()\n",
    "waits for a stopped child": (
        "import os, signal\ndef attack(world):\n    pid = os.fork()\n"
        "    if pid == 0:\n        os.kill(os.getpid(), signal.SIGSTOP)\n        signal.pause()\n"
        "    os.waitpid(pid, 0)\n"
    ),
    "keeps a zombie": (
        "import os, time\ndef attack(world):\n    if os.fork() == 0:\n        os._exit(0)\n    time.sleep(600)\n"
    ),
    "an iterator that never yields": "import time\ndef attack(world):\n    yield time.sleep(600)\n",
    "an exception that never says what": (
        "import time\nclass Slow(Exception):\n    def __str__(self):\n        time.sleep(600)\n"
        "def attack(world):\n    raise Slow\n"
    ),
}
"""Programs that never end, by how; nothing ends them but SIGKILL."""

SURVIVORS = {
    "a child": "import os, time\nif os.fork() == 0:\n    time.sleep(600)\n    os._exit(0)\n",
    "a daemon": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(600)\n"
        "    os._exit(0)\n"
    ),
    "a daemon deaf to signals": (
        "import os, signal, time\nif os.fork() == 0:\n    os.setsid()\n"
        "    for one in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "        signal.signal(one, signal.SIG_IGN)\n"
        "    if os.fork() == 0:\n        time.sleep(600)\n    os._exit(0)\n"
    ),
    "a stopped child": (
        "import os, signal\nif os.fork() == 0:\n    os.setsid()\n    os.kill(os.getpid(), signal.SIGSTOP)\n"
        "    signal.pause()\n"
    ),
}
"""Programs that leave a process behind when they end."""
