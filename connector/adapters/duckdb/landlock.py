"""Landlock: the kernel lets this process reach no files but those named here.

Linux 5.13 and later, without privileges; structures as in <linux/landlock.h>. It binds the
calling thread and those that it starts from then on, so it comes before the engine's threads.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_VERSION, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_WRITE = (1 << 1) | (1 << 4) | (1 << 5) | (1 << 7) | (1 << 8)  # write, remove, make
_FILE_RIGHTS = (1 << 0) | (1 << 1) | _READ_FILE
_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}  # how many file system rights there are
_NET_BIND_AND_CONNECT = 0b11  # since version 4


def install(libc: ctypes.CDLL, *, readable: Iterable[Path], writable: Iterable[Path]) -> int:
    """The version of Landlock in force, 0 where there is none.

    ``readable`` and ``writable`` are files and folders; what does not exist is left out.
    ``no_new_privs`` must be set before.
    """
    if platform.system() != "Linux":
        return 0
    version = int(libc.syscall(_CREATE, None, 0, _VERSION))
    if version < 1:
        return 0
    handled = (1 << _RIGHTS_BY_VERSION.get(version, 16)) - 1
    attributes = struct.pack("QQ", handled, _NET_BIND_AND_CONNECT)
    if version < 4:
        attributes = attributes[:8]
    rules = int(libc.syscall(_CREATE, attributes, len(attributes), 0))
    if rules < 0:
        return 0
    try:
        for path in readable:
            _allow(libc, rules, path, _READ_FILE | _READ_DIR)
        for path in writable:
            _allow(libc, rules, path, _READ_FILE | _READ_DIR | _WRITE | handled & (1 << 14))
        return version if libc.syscall(_RESTRICT, rules, 0) == 0 else 0
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= _FILE_RIGHTS | 1 << 14
        libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)
