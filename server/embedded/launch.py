"""Becomes a child server. Run as a script, with the standard library alone:

    python -I -S launch.py PARENT SIGNAL UID GID PROGRAM [ARGUMENT ...]

The kernel sends SIGNAL to the program when the process PARENT ends, even by SIGKILL (Linux). UID and GID are -1 to
stay who we are. A script and not `preexec_fn`, which may deadlock once the parent has threads and forces a full fork.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, death_signal, uid, gid = map(int, sys.argv[1:5])
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of user, which clears it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the parent ended before its child began")
    os.execv(sys.argv[5], sys.argv[5:])  # noqa: S606 - no shell is what we want


if __name__ == "__main__":
    main()
