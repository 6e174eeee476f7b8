"""Turns itself into another program that ends when its parent does, and that may run under another account.

    python -I -S launch.py PARENT_PID SIGNAL_AT_PARENTS_DEATH USER|- COMMAND...

A signal of 0 lets the program outlive its parent. Only the standard library: it starts in about 15 ms.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, death_signal: int, user: str, command: list[str]) -> None:
    if user != "-":
        account = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    if death_signal:
        # After the change of account, which would clear it. The parent may have died before: look once.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:
            sys.exit("the process that started this one is gone")
    # Python ignores these two, and what is ignored stays ignored in the new program.
    for name in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(name, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
