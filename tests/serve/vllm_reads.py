"""Run by vLLM's own interpreter: reads commands as JSON on standard input, has vLLM's parser read each, and prints what
it understood. Also which environment variables vLLM knows, and which reasoning parsers it has."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import Any

FIELDS = (
    "model_tag",
    "served_model_name",
    "host",
    "port",
    "load_format",
    "generation_config",
    "reasoning_parser",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "data_parallel_size_local",
    "data_parallel_address",
    "data_parallel_start_rank",
    "enable_expert_parallel",
    "max_model_len",
    "max_num_seqs",
    "gpu_memory_utilization",
    "kv_cache_dtype",
    "nnodes",
    "node_rank",
    "master_addr",
    "headless",
    "trust_remote_code",
    "api_key",
)


def read(arguments: list[str]) -> dict[str, Any]:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(arguments)
            validate_parsed_serve_args(parsed)
    except (SystemExit, ValueError, TypeError) as error:
        return {"error": f"{error} {errors.getvalue()[-300:]}"}
    return {name: getattr(parsed, name) for name in FIELDS}


def main() -> None:
    from vllm.envs import environment_variables
    from vllm.reasoning import ReasoningParserManager

    commands = json.load(sys.stdin)
    found = {
        "commands": [read(command) for command in commands],
        "variables": sorted(environment_variables),
        "parsers": sorted(ReasoningParserManager.list_registered()),
    }
    print("\n" + json.dumps(found, default=str))


if __name__ == "__main__":
    main()
