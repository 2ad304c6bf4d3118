"""The system calls that a sandboxed program may make, as a filter that the Linux kernel runs.

The list says what is allowed; everything else fails, on x86_64 and aarch64 alike. A program that
reads its input, computes and prints needs no file, no process and no socket, so it gets none.
Source: Linux man pages seccomp(2) and bpf(4); <linux/audit.h> for the architectures.
"""

import errno
import struct
from collections.abc import Iterator

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*

# name → number on x86_64 and aarch64; None where the architecture has no such call.
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # its three streams
    **{"read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66)},
    **{"pread64": (17, 67), "lseek": (8, 62), "close": (3, 57), "fstat": (5, 80)},
    **{"newfstatat": (262, 79), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24)},
    **{"poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72)},
    # memory
    **{"mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214)},
    **{"mremap": (25, 216), "madvise": (28, 233), "membarrier": (324, 283)},
    # threads, and the signals of one's own process
    **{"futex": (202, 98), "set_robust_list": (273, 99), "rseq": (334, 293)},
    **{"set_tid_address": (218, 96), "sched_yield": (24, 124), "sched_getaffinity": (204, 123)},
    **{"rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139)},
    **{"sigaltstack": (131, 132), "restart_syscall": (219, 128)},
    **{"exit": (60, 93), "exit_group": (231, 94)},
    # time, chance, and what one may know of oneself
    **{"clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115)},
    **{"nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, None)},
    **{"times": (100, 153), "getrusage": (98, 165), "getrlimit": (97, 163)},
    **{"getrandom": (318, 278), "getpid": (39, 172), "gettid": (186, 178)},
    **{"getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175)},
    **{"getgid": (104, 176), "getegid": (108, 177), "uname": (63, 160), "getcwd": (79, 17)},
}
# Refused with an error that programs and the C library expect; any other call is "not permitted".
_REFUSED: dict[str, tuple[tuple[int | None, int | None], int]] = {
    "open": ((2, None), errno.ENOENT),
    "openat": ((257, 56), errno.ENOENT),
    "readlink": ((89, None), errno.ENOENT),
    "readlinkat": ((267, 78), errno.ENOENT),
    "access": ((21, None), errno.ENOENT),
    "ioctl": ((16, 29), errno.ENOTTY),
    "clone3": ((435, 435), errno.ENOSYS),  # its flags lie in memory; the C library tries clone
}
_CLONE, _FCNTL, _PRLIMIT = (56, 220), (72, 25), (302, 261)
_THREAD_FLAGS = (0x3D0F00, 0x7D0F00)  # what glibc and musl pass to start a thread
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, ..._CLOEXEC

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF instruction codes
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000  # SECCOMP_RET_*
_X32 = 0x40000000  # numbers of a second calling convention on x86_64

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def program(machine: str) -> bytes:
    """Returns the filter for a machine, as the kernel's array of instructions.

    Args:
        machine: as `os.uname().machine` spells it, one of ARCHITECTURES.
    """
    code = [
        *((_LOAD, 0, 0, 4), (_EQUAL, 1, 0, ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL)),
        *((_LOAD, 0, 0, 0), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)),
        *_rules(list(ARCHITECTURES).index(machine)),
        (_RETURN, 0, 0, _ERROR | errno.EPERM),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _rules(column: int) -> Iterator[Instruction]:
    for numbers in _ALLOWED.values():
        yield from _if_call(numbers[column], [(_RETURN, 0, 0, _ALLOW)])
    for numbers, error in _REFUSED.values():
        yield from _if_call(numbers[column], [(_RETURN, 0, 0, _ERROR | error)])
    yield from _if_call(_CLONE[column], _one_of(0, _THREAD_FLAGS))
    # F_SETOWN and F_SETSIG could send a signal to another process
    yield from _if_call(_FCNTL[column], _one_of(1, _FCNTL_COMMANDS))
    # Limits may be read (no new limit: a null pointer); changing them seems to work, for programs
    # that ask for a larger stack first.
    unchanged = (_RETURN, 0, 0, _ERROR | 0)
    reads = [(_LOAD, 0, 0, 32), (_EQUAL, 1, 0, 0), unchanged, (_LOAD, 0, 0, 36)]
    reads += [(_EQUAL, 1, 0, 0), unchanged, (_LOAD, 0, 0, 16), (_EQUAL, 1, 0, 0)]
    reads += [(_RETURN, 0, 0, _ERROR | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    yield from _if_call(_PRLIMIT[column], reads)


def _if_call(number: int | None, body: list[Instruction]) -> list[Instruction]:
    """Returns the body, skipped for other calls; the call's number is loaded before and after."""
    return [] if number is None else [(_EQUAL, 0, len(body), number), *body]


def _one_of(argument: int, values: tuple[int, ...]) -> list[Instruction]:
    """Allows a call whose argument is one of the values, and refuses it otherwise."""
    low = 16 + 8 * argument
    body = [(_LOAD, 0, 0, low + 4), (_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _ERROR | errno.EPERM)]
    body.append((_LOAD, 0, 0, low))
    for value in values:
        body += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*body, (_RETURN, 0, 0, _ERROR | errno.EPERM)]
