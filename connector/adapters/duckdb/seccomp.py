"""A seccomp filter: system calls that a query never needs are refused by the kernel.

No network, no new programs or processes (threads stay possible), no tracing or signalling into
other processes' memory, no mounts, namespaces, keys or kernel interfaces; for a query also no
file opened for writing, created, renamed or removed. A deny list: what is not on it is allowed,
so this narrows what a fault in the engine could reach and does not replace the other layers.

Linux on x86-64 and ARM64; elsewhere ``install`` says no. Instructions as in <linux/filter.h>.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass

_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_SET_FILTER, _ALL_THREADS = 1, 1
_X32 = 0x40000000
_CLONE_THREAD = 0x00010000
_WRITING = 0o3 | 0o100 | 0o1000 | 0o2000  # access mode, O_CREAT, O_TRUNC, O_APPEND

# System call numbers: x86-64, ARM64 (None: the call does not exist there).
_DENIED: Mapping[str, tuple[int | None, int | None]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kill": (62, 129),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "open_by_handle_at": (304, 265),
    "memfd_create": (319, 279),
    "personality": (135, 92),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "shmget": (29, 194),
    "msgget": (68, 186),
}
_DENIED_TO_QUERIES: Mapping[str, tuple[int | None, int | None]] = {
    "creat": (85, None),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rmdir": (84, None),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "truncate": (76, 45),
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchownat": (260, 54),
}


@dataclass(frozen=True, slots=True)
class _Machine:
    column: int  # in the tables above
    audit: int  # AUDIT_ARCH_*
    seccomp: int  # system call numbers
    clone: int
    clone3: int
    openat: int
    openat2: int
    open: int | None


_MACHINES: Mapping[str, _Machine] = {
    "x86_64": _Machine(0, 0xC000003E, 317, 56, 435, 257, 437, 2),
    "aarch64": _Machine(1, 0xC00000B7, 277, 220, 435, 56, 437, None),
}


def install(libc: ctypes.CDLL, *, may_write: bool) -> bool:
    """Put the filter on every thread of this process; False where it cannot be.

    ``no_new_privs`` must be set before. ``may_write`` leaves files writable.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None or platform.system() != "Linux":
        return False
    code = _program(machine, may_write=may_write)
    filters = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(filters))
    program = ctypes.create_string_buffer(head, len(head))
    return int(libc.syscall(machine.seccomp, _SET_FILTER, _ALL_THREADS, program)) == 0


def _program(machine: _Machine, *, may_write: bool) -> bytes:
    denied = [numbers[machine.column] for numbers in _DENIED.values()]
    if not may_write:
        denied += [numbers[machine.column] for numbers in _DENIED_TO_QUERIES.values()]
    refused, unknown = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_GREATER_EQUAL, 0, 1, _X32),
        (_RETURN, 0, 0, refused),
        (_EQUAL, 0, 1, machine.clone3),  # its flags cannot be read here; callers then use clone
        (_RETURN, 0, 0, unknown),
        (_EQUAL, 0, 4, machine.clone),
        (_LOAD, 0, 0, _ARGUMENTS),
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, refused),
        (_RETURN, 0, 0, _ALLOW),
    ]
    for number in denied:
        if number is not None:
            code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, refused)]
    if not may_write:
        code += [(_EQUAL, 0, 1, machine.openat2), (_RETURN, 0, 0, unknown)]
        code += _only_reading(machine.openat, flags=2)
        code += [] if machine.open is None else _only_reading(machine.open, flags=1)
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def _only_reading(number: int, *, flags: int) -> list[tuple[int, int, int, int]]:
    """Refuse an open whose flags, in argument number ``flags``, ask for more than reading."""
    return [
        (_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, _ARGUMENTS + 8 * flags),
        (_ANY_BIT, 0, 1, _WRITING),
        (_RETURN, 0, 0, _ERROR | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
