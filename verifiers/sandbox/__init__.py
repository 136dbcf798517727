"""Programs nobody vouches for, run where they can do no harm and cannot say whether they were right.

Two halves. Outside, in the verifier's process: ``cases`` and ``inputs`` (what a row's are), ``confine`` (bubblewrap's
command line), ``client`` (servers and checks).
Inside the sandbox: ``server`` forks for every check a ``candidate``, which holds the program, and a ``referee``, which
holds the tests, or an ``observer``, which holds inputs and tells what came of them; ``jail`` confines each of them,
``seccomp`` takes system calls away, ``plain`` is what they say to each other. The inner files import the standard
library and each other only, relatively: inside, this folder is a package of its own without the rest of Ponder.

Covered: network, files, environment, other processes, time, processor, memory, processes, file sizes and output, and
forged verdicts. Not covered: bugs of the kernel that the remaining system calls can reach, side channels between
processes of one machine, and a candidate that computes right answers only while it is tested.
"""
