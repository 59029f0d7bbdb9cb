"""Forking: how the programs of others are started, helpers and plugins alike.

By a fork, and not by a vfork, during which this whole process would stand still: the program may
lie on a disk that nobody answers for, or in the very mount that waits for it.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence


def forked(
    command: Sequence[str], environ: Mapping[str, str], *, stderr: int
) -> "subprocess.Popen[bytes]":
    """Start a program with pipes for what it is told and says. Blocks; for worker threads.

    It has a session of its own: no terminal to ask questions on, no signals that are not for it,
    and one signal reaches its children too. ``stderr`` is as ``subprocess`` has it.

    Raises:
        OSError: it cannot be started.
        ValueError: its command is none: a NUL in it.
    """
    return subprocess.Popen(
        command,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        cwd="/",
        env=environ,
        start_new_session=True,
        # The group is the one that we have. Setting it rules vfork out.
        group=os.getegid(),
    )
