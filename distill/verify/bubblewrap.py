"""What a program sees inside bubblewrap: an interpreter, the system's libraries, a small /tmp of its own, nothing else.

Only the arguments are made here. Knows nothing about programs and their limits.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108  # the sandbox's own
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the order of a set of texts must not change a verdict
    "PYTHONUTF8": "1",
    "MALLOC_ARENA_MAX": "1",  # each thread's arena would take 64 MiB of the address space
    "OMP_NUM_THREADS": "1",
}


def base_interpreter() -> str:
    """The interpreter under a virtual environment, by its real path."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def arguments(*, root: bool, disk_bytes: int, compiler: str | None) -> list[str]:
    """bubblewrap's own, up to the program to run: as root without a user namespace, or in one."""
    namespaces = ("ipc", "pid", "net", "uts", "cgroup-try") if root else ("all",)
    powers = ("SETUID", "SETGID", "KILL") if root else ()
    return [
        *(f"--unshare-{name}" for name in namespaces),
        *("--cap-drop", "ALL"),
        *(part for power in powers for part in ("--cap-add", f"CAP_{power}")),
        *("--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"),
        *(part for name, value in ENVIRONMENT.items() for part in ("--setenv", name, value)),
        *_libraries(),
        *_interpreter(),
        *(_compiler_files(compiler) if compiler else ()),
        *("--proc", "/proc", "--size", "65536", "--tmpfs", "/dev"),
        *(part for name in ("null", "zero", "random", "urandom") for part in ("--dev-bind", *[f"/dev/{name}"] * 2)),
        *(
            part
            for n, name in enumerate(("in", "out", "err"))
            for part in ("--symlink", f"/proc/self/fd/{n}", f"/dev/std{name}")
        ),
        *("--remount-ro", "/dev"),
        *("--perms", "1777", "--size", str(disk_bytes), "--tmpfs", "/tmp"),  # noqa: S108  # the sandbox's own
        *("--remount-ro", "/", "--chdir", "/tmp"),  # noqa: S108
    ]


def _shown(*paths: str | Path) -> Iterator[str]:
    """Read-only, at the same place inside; of the folders above only the names, which anybody may pass through."""
    for path in paths:
        for above in reversed(Path(path).parents[:-1]):
            yield from ("--perms", "0755", "--dir", str(above))
        yield from ("--ro-bind", str(path), str(path))


@cache
def _libraries() -> tuple[str, ...]:
    """The system's shared libraries: all that a program in C needs."""
    arguments: list[str] = []
    for name in ("lib", "lib32", "lib64", "libx32"):
        if (top := Path("/", name)).is_symlink():
            arguments += ("--symlink", str(top.readlink()), str(top))
        elif top.is_dir():
            arguments += _shown(top)
        if (inner := Path("/usr", name)).is_dir() and not inner.is_symlink():
            arguments += _shown(inner)
    stores = (store for store in ("/nix/store", "/gnu/store") if base_interpreter().startswith(store))
    arguments += _shown(*stores, *(path for path in ("/etc/ld.so.cache",) if Path(path).is_file()))
    return tuple(arguments)


@cache
def _interpreter() -> tuple[str, ...]:
    """Python itself and its standard library, without what is installed into it."""
    base, standard = Path(sys.base_prefix), Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    if str(base) in ("/usr", "/usr/local"):
        shared = Path(base, "lib", str(sysconfig.get_config_var("INSTSONAME")))
        folders = [standard, shared] if shared.is_file() else [standard]
    else:
        folders = [path for path in (base / "lib", base / "lib64") if path.is_dir()]
    arguments = [*_shown(*folders, base_interpreter())]
    for name in ("site-packages", "dist-packages"):
        if (installed := standard / name).is_dir():
            arguments += ("--size", "65536", "--tmpfs", str(installed), "--remount-ro", str(installed))
    return tuple(arguments)


# --- C++ -----------------------------------------------------------------------------------------------------------

COMPILER_OPTIONS = ("-O2", "-std=gnu++20", "-pipe", "-w", "-x", "c++")
"""C++20 as Codeforces offers it beside C++17, which nearly all programs of C++17 are."""


@cache
def compiler_here() -> str | None:
    """The real path of a C++ compiler that knows the options, None where there is none."""
    for name in ("g++", "clang++", "c++"):
        found = shutil.which(name)
        if found is None:
            continue
        command = [found, *COMPILER_OPTIONS, "-fsyntax-only", "-"]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            told = subprocess.run(command, input=b"#include <cmath>", capture_output=True, timeout=60, check=False)  # noqa: S603
            if told.returncode == 0:
                return os.path.realpath(found)
    return None


def _compiler_files(compiler: str) -> Sequence[str]:
    """The folders of the tools, headers and parts of the compiler."""
    prefix = Path(compiler).parent.parent
    folders = [prefix / name for name in ("bin", "lib", "lib64", "include", "libexec")]
    folders += [Path("/usr", name) for name in ("bin", "include", "libexec")]
    return [*_shown(*(folder for folder in dict.fromkeys(folders) if folder.is_dir()))]
