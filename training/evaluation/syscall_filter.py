"""Builds the seccomp filter under which code of a model runs: no other process, no socket, no change of the system.

A process that has loaded it (Linux, `prctl`) cannot take it off, and the kernel checks every system call against it,
whatever library makes the call. Calls are listed by what they would allow; the list is of what is refused, because
what a Python interpreter needs differs by its version and its C library. A refused call fails with EPERM.
"""

from __future__ import annotations

import errno
import platform
import struct
import sys

# Numbers of the kernel's system calls: x86-64 (arch/x86/entry/syscalls/syscall_64.tbl), arm64 (asm-generic/unistd.h)
_REFUSED: dict[str, dict[str, int]] = {
    "x86_64": {
        # other processes: start, signal, trace, read, limit
        "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "kill": 62, "tkill": 200, "tgkill": 234,
        "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "pidfd_open": 434, "pidfd_send_signal": 424,
        "pidfd_getfd": 438, "process_madvise": 440, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311,
        "kcmp": 312, "setrlimit": 160, "setpriority": 141, "ioprio_set": 251, "sched_setscheduler": 144,
        "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240,
        # the network, and queues that make other calls unseen
        "socket": 41, "socketpair": 53, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        # files beside those that `open` checks
        "mknod": 133, "mknodat": 259, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197,
        "lremovexattr": 198, "fremovexattr": 199, "name_to_handle_at": 303, "open_by_handle_at": 304, "quotactl": 179,
        # namespaces and mounts
        "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161,
        "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
        "mount_setattr": 442,
        # the kernel and the machine
        "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "add_key": 248, "request_key": 249, "keyctl": 250,
        "init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320,
        "reboot": 169, "swapon": 167, "swapoff": 168, "acct": 163, "sethostname": 170, "setdomainname": 171,
        "settimeofday": 164, "clock_settime": 227, "adjtimex": 159, "clock_adjtime": 305, "personality": 135,
    },
    "aarch64": {
        "execve": 221, "execveat": 281, "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138,
        "rt_tgsigqueueinfo": 240, "pidfd_open": 434, "pidfd_send_signal": 424, "pidfd_getfd": 438,
        "process_madvise": 440, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
        "setrlimit": 164, "setpriority": 140, "ioprio_set": 30, "sched_setscheduler": 119, "shmget": 194,
        "semget": 190, "msgget": 186, "mq_open": 180, "socket": 198, "socketpair": 199, "io_uring_setup": 425,
        "io_uring_enter": 426, "io_uring_register": 427, "mknodat": 33, "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7,
        "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16, "name_to_handle_at": 264, "open_by_handle_at": 265,
        "quotactl": 60, "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51,
        "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
        "mount_setattr": 442, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "add_key": 217,
        "request_key": 218, "keyctl": 219, "init_module": 105, "finit_module": 273, "delete_module": 106,
        "kexec_load": 104, "kexec_file_load": 294, "reboot": 142, "swapon": 224, "swapoff": 225, "acct": 89,
        "sethostname": 161, "setdomainname": 162, "settimeofday": 170, "clock_settime": 112, "adjtimex": 171,
        "clock_adjtime": 266, "personality": 92,
    },
}  # fmt: skip
# Refused by their arguments: clone but for a thread, prlimit64 but to ask for one's own limits, and openat that writes
# below an open folder, where a hook that sees only the path takes it for one in the working directory
_BY_ARGUMENT = {
    "x86_64": {"clone": 56, "prlimit64": 302, "openat": 257},
    "aarch64": {"clone": 220, "prlimit64": 261, "openat": 56},
}
# Answered as if the kernel had none, so that a C library takes the older call: their arguments are in memory
_UNKNOWN = {"clone3": 435, "openat2": 437}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_* of linux/audit.h

# Classic BPF, linux/bpf_common.h and linux/seccomp.h
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; an argument has 8 bytes, the low half first
_X32 = 0x40000000  # numbers of x86-64's second interface, with which the same calls have others
_THREAD, _HERE = 0x10000, 0xFFFFFF9C  # CLONE_THREAD; AT_FDCWD, -100 in 32 bits
_WRITES = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20000000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, O_TMPFILE


def build_filter(machine: str | None = None) -> bytes:
    """The filter as an array of struct sock_filter; empty where this machine has none (another system or processor)."""
    machine = machine or (platform.machine() if sys.platform == "linux" else "")
    if machine not in _REFUSED:
        return b""
    special = _BY_ARGUMENT[machine]
    program = [
        _step(_LOAD, _ARCH), _step(_EQUAL, _ARCHITECTURE[machine], 1, 0), _step(_RETURN, _KILL), _step(_LOAD, _NUMBER),
    ]  # fmt: skip
    if machine == "x86_64":
        program += _unless(_step(_AT_LEAST, _X32, 0, 1))
    for number in _REFUSED[machine].values():
        program += _unless(_step(_EQUAL, number, 0, 1))
    for number in _UNKNOWN.values():
        program += _unless(_step(_EQUAL, number, 0, 1), errno.ENOSYS)
    program += _only(special["clone"], [_step(_LOAD, _ARGUMENTS), *_unless(_step(_ANY_BIT, _THREAD, 1, 0))])
    program += _only(
        special["prlimit64"],
        [
            _step(_LOAD, _ARGUMENTS), *_unless(_step(_EQUAL, 0, 1, 0)),  # of this process
            _step(_LOAD, _ARGUMENTS + 16), *_unless(_step(_EQUAL, 0, 1, 0)),  # no new limit
            _step(_LOAD, _ARGUMENTS + 20), *_unless(_step(_EQUAL, 0, 1, 0)),
        ],
    )  # fmt: skip
    program += _only(
        special["openat"],
        [
            _step(_LOAD, _ARGUMENTS), _step(_EQUAL, _HERE, 3, 0),
            _step(_LOAD, _ARGUMENTS + 16), *_unless(_step(_ANY_BIT, _WRITES, 0, 1)),
        ],
    )  # fmt: skip
    return b"".join([*program, _step(_RETURN, _ALLOW)])


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """An instruction; a jump skips so many of the next ones."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _unless(test: bytes, error: int = errno.EPERM) -> list[bytes]:
    """Refuses the call unless the test jumps over the refusal."""
    return [test, _step(_RETURN, _ERRNO | error)]


def _only(number: int, body: list[bytes]) -> list[bytes]:
    """Runs `body`, which may overwrite the call's number, for one call; what it does not refuse is allowed."""
    return [_step(_EQUAL, number, 0, len(body) + 1), *body, _step(_RETURN, _ALLOW)]
