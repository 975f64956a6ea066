"""The filter of system calls that a program under test runs with, as the kernel's own small bytecode (classic BPF).

A program may start threads but no processes, open no sockets, and hold no memory that its limit does not count. Knows
nothing about who installs it.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping

_ELSEWHERE = "ptrace process_vm_readv process_vm_writev pidfd_getfd"
"""Reaching into another process."""
_UNCOUNTED = "memfd_create memfd_secret shmget msgget semget mq_open io_uring_setup"
"""Memory outside the address space, which RLIMIT_AS does not see; io_uring also carries out calls past this filter."""
_KERNEL = (
    "unshare setns mount umount2 pivot_root chroot open_tree move_mount fsopen fsmount mount_setattr bpf userfaultfd "
    "perf_event_open add_key request_key keyctl open_by_handle_at kexec_load kexec_file_load init_module finit_module "
    "delete_module"
)
"""Namespaces, mounts and the parts of the kernel in which most ways out of a sandbox were found."""
_SIGNALS = "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal"
"""Ending other processes, of which a namespace has none worth keeping."""
REFUSED = ("fork", "vfork", "socket", *_ELSEWHERE.split(), *_UNCOUNTED.split(), *_KERNEL.split())

NUMBERS: Mapping[str, Mapping[str, int]] = {
    "x86_64": {
        "clone": 56, "clone3": 435, "fork": 57, "vfork": 58, "socket": 41, "ptrace": 101, "process_vm_readv": 310,
        "process_vm_writev": 311, "pidfd_getfd": 438, "memfd_create": 319, "memfd_secret": 447, "shmget": 29,
        "msgget": 68, "semget": 64, "mq_open": 240, "io_uring_setup": 425, "unshare": 272, "setns": 308, "mount": 165,
        "umount2": 166, "pivot_root": 155, "chroot": 161, "open_tree": 428, "move_mount": 429, "fsopen": 430,
        "fsmount": 432, "mount_setattr": 442, "bpf": 321, "userfaultfd": 323, "perf_event_open": 298, "add_key": 248,
        "request_key": 249, "keyctl": 250, "open_by_handle_at": 304, "kexec_load": 246, "kexec_file_load": 320,
        "init_module": 175, "finit_module": 313, "delete_module": 176, "kill": 62, "tkill": 200, "tgkill": 234,
        "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "pidfd_send_signal": 424,
    },
    "aarch64": {
        "clone": 220, "clone3": 435, "socket": 198, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271,
        "pidfd_getfd": 438, "memfd_create": 279, "memfd_secret": 447, "shmget": 194, "msgget": 186, "semget": 190,
        "mq_open": 180, "io_uring_setup": 425, "unshare": 97, "setns": 268, "mount": 40, "umount2": 39,
        "pivot_root": 41, "chroot": 51, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsmount": 432,
        "mount_setattr": 442, "bpf": 280, "userfaultfd": 282, "perf_event_open": 241, "add_key": 217,
        "request_key": 218, "keyctl": 219, "open_by_handle_at": 265, "kexec_load": 104, "kexec_file_load": 294,
        "init_module": 105, "finit_module": 273, "delete_module": 106, "kill": 129, "tkill": 130, "tgkill": 131,
        "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "pidfd_send_signal": 424,
    },
}  # fmt: skip
"""Machine → number of each call: asm/unistd_64.h and asm-generic/unistd.h, which a test reads where they are there."""
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_… of linux/audit.h."""
_X32 = 0x40000000
"""Bit of the numbers of x86_64's second table of calls, to which the first one's numbers do not apply."""
_CLONE_THREAD = 0x00010000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""BPF_LD|BPF_W|BPF_ABS, BPF_JMP with BPF_JEQ, BPF_JGE and BPF_JSET against a constant, BPF_RET."""
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in struct seccomp_data; of the argument the lower half, both machines being little-endian."""
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
"""SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS."""


def call_filter(machine: str, *, signals: bool = True) -> bytes | None:
    """An array of struct sock_filter for `platform.machine()`, None for a machine whose numbers are not known here.

    New processes fail with EAGAIN, as under RLIMIT_NPROC; clone3 does not exist, so that libc takes clone, whose flags
    can be looked at; the rest fails with EPERM, signals to other processes too unless allowed.
    """
    if machine not in NUMBERS:
        return None
    numbers = NUMBERS[machine]
    code = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _REFUSE | errno.ENOSYS),
        (_EQUAL, 0, 1, numbers["clone3"]),
        (_RETURN, 0, 0, _REFUSE | errno.ENOSYS),
        (_EQUAL, 0, 4, numbers["clone"]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE | errno.EAGAIN),
    ]
    for name in (*REFUSED, *(() if signals else _SIGNALS.split())):
        if name in numbers:  # fork and vfork are no calls of their own on aarch64
            why = errno.EAGAIN if name in ("fork", "vfork") else errno.EPERM
            code += [(_EQUAL, 0, 1, numbers[name]), (_RETURN, 0, 0, _REFUSE | why)]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
