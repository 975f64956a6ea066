"""Causes by which a server cannot start: the machine, the environment, the model, the settings. A table.

The texts are those of vLLM 0.32 (a test looks for them in the installed one), of torch, transformers, huggingface_hub
and Python.
"""

from __future__ import annotations

from distill.serve.rules import rule

_DOWNLOAD = "download the model first, or correct the teacher's `model` and `revision`"
_ENVIRONMENT = "give another environment with --python"

MACHINE = (
    rule(
        "driver_too_old",
        r"NVIDIA driver on your system is too old \(found version (?P<version>\d+)\)",
        "the NVIDIA driver is too old for this build of torch: it serves CUDA {version} (1000 · major + 10 · minor)",
        "update the driver, or install a vLLM that was built for an older CUDA",
    ),
    rule(
        "driver_too_old",
        r"CUDA driver version is insufficient for CUDA runtime|compiled with an unsupported toolchain",
        "the NVIDIA driver is too old for this build of vLLM",
        "update the driver, or install a vLLM that was built for an older CUDA",
    ),
    rule(
        "driver_mismatch",
        r"Error 80[34]: |unsupported display driver / cuda driver combination",
        "the CUDA libraries do not go with the driver: mostly a container's `cuda-compat` stands before the driver's",
        "put the driver's folder first in LD_LIBRARY_PATH, such as /usr/local/nvidia/lib64, or reboot after an update",
    ),
    rule(
        "fabric_manager",
        r"Error 802: |system not yet initialized",
        "the GPUs are joined by NVSwitch, and the service that sets it up does not run or is not ready",
        "start it: `systemctl start nvidia-fabricmanager`, of the driver's own version",
        "no",
    ),
    rule(
        "no_gpu",
        r"No CUDA GPUs are available|Found no NVIDIA driver|Failed to infer device type|no CUDA-capable device",
        "vLLM sees no GPU",
        "see whether nvidia-smi lists one here, whether CUDA_VISIBLE_DEVICES hides it, and whether this vLLM was built "
        "for it",
    ),
    rule(
        "no_gpu",
        r"World size \((?P<wanted>\d+)\) is larger than the number of available GPUs \((?P<there>\d+)\)",
        "the layout needs {wanted} GPUs in this node and vLLM sees {there}",
        "lower serve.tensor_parallel or serve.pipeline_parallel, or see whether CUDA_VISIBLE_DEVICES hides some",
    ),
    rule(
        "unsupported_gpu",
        r"no kernel image is available for execution on the device",
        "this build of vLLM holds no code for this kind of GPU",
        "install a vLLM that was built for it, or use another GPU",
    ),
    rule(
        "unsupported_gpu",
        r"compute capability of at least (?P<least>[\d.]+)\. Your (?P<gpu>.+) GPU has compute capability "
        r"(?P<has>\d+\.\d+)",
        "bfloat16 needs compute capability {least}, and the {gpu} has {has}",
        "set serve.dtype to float16, or use a newer GPU",
    ),
    rule(
        "unsupported_gpu",
        r"quantization method (?P<method>.+) is not supported for the current GPU\. Minimum capability: "
        r"(?P<least>\d+)\. Current capability: (?P<has>\d+)",
        "weights in {method} need compute capability {least} (10 · major + minor), and this GPU has {has}",
        "use a teacher with other weights, or a newer GPU",
    ),
    rule(
        "unsupported_gpu",
        r"No valid attention backend found for (?P<gpu>\S+)",
        "vLLM has no attention for this model and KV cache on {gpu}",
        "set serve.kv_cache_dtype to auto, or use another GPU",
    ),
    rule(
        "port_in_use",
        r"(?i)\[Errno 98\]|address already in use|EADDRINUSE",
        "a port that the server wants is taken",
        "end the process that has it (`ss -ltnp` names it), or choose other ports",
        "no",
    ),
    rule(
        "missing_package",
        r"No module named '?(?P<name>[\w.]+)'?$",
        "the environment of vLLM has no package `{name}`",
        _ENVIRONMENT + ", or install it there",
    ),
    rule(
        "missing_library",
        r"ImportError: (?P<name>lib\S+): cannot open shared object file",
        "the environment of vLLM lacks the library {name}",
        _ENVIRONMENT + ", or install what this build of vLLM needs",
    ),
)

MODEL = (
    rule(
        "model_gated",
        r"Cannot access gated repo|trying to access a gated repo|Access to model (?:\S+) is restricted",
        "the model is gated, and there is no permission for it here",
        "accept its terms on its page, then `hf auth login` or HF_TOKEN",
    ),
    rule(
        "model_not_found",
        r"(?P<model>\S+) is not a local folder and is not a valid model identifier",
        "there is no model `{model}`, neither a folder here nor on the hub",
        _DOWNLOAD,
    ),
    rule(
        "model_not_found",
        r"(?P<revision>\S+) is not a valid git identifier",
        "the model has no revision `{revision}`",
        "correct the teacher's `revision`",
    ),
    rule(
        "model_not_found",
        r"Repository Not Found for url|Could not detect config format for no config file found|"
        r"Invalid repository ID or local directory specified|Repo id must be (?:in the form|a string)",
        "there is no such model, neither a folder with a config.json here nor on the hub",
        _DOWNLOAD,
    ),
    rule(
        "model_not_downloaded",
        r"couldn't connect to '\S+' to load the files|outgoing traffic has been disabled|"
        r"Cannot find (?:the requested files in the disk cache|an appropriate cached snapshot)|offline mode is enabled",
        "the model is not on this machine, and the hub cannot be reached",
        "download it where there is a network, into a folder that every node sees, and give that folder as the model",
    ),
    rule(
        "weights_missing",
        r"Cannot find any (?:safetensors )?model weights with `(?P<model>[^`]+)`",
        "{model} holds no weights that may be loaded; only safetensors are",
        _DOWNLOAD + "; pickled weights (.bin, .pt) are not loaded",
    ),
    rule(
        "weights_missing",
        r"does not appear to have a file named (?P<file>\S+?)[.,]?(?: |$)",
        "a file of the model is missing: {file}",
        "download the model again; an interrupted download leaves files out",
    ),
    rule(
        "weights_missing",
        r"No such file or directory: '?(?P<file>[^'\s]*\.safetensors)",
        "a file of the model is missing: {file}",
        "download the model again; an interrupted download leaves files out",
    ),
    rule(
        "weights_missing",
        r"weights were not initialized from checkpoint: (?P<names>.{1,200})",
        "the model's files lack weights: {names}",
        "download the model again; a revision may also lack a shard",
    ),
    rule(
        "weights_broken",
        r"Error while deserializing header: ?(?P<reason>[\w ,]+)",
        "a file of weights is incomplete or broken ({reason})",
        "compare the files with their hashes and download the broken one again",
    ),
    rule(
        "remote_code",
        r"`trust_remote_code=True`|contains custom code which must be executed",
        "the model wants to run code of its own",
        "read that code; only a teacher spec with `trust_remote_code: true` and a fixed `revision` runs it",
    ),
    rule(
        "unsupported_model",
        r"Model architectures? (?P<name>\[[^\]]+\]|\S+) (?:are|is|was|failed) (?:not )?(?:supported|to be inspected)",
        "this vLLM does not know the model's architecture {name}",
        "install a newer vLLM, or " + _ENVIRONMENT,
    ),
    rule(
        "unsupported_model",
        r"model type `(?P<name>[^`]+)` but Transformers does not recognize this architecture",
        "the transformers of this environment does not know the model type {name}",
        "install a newer vLLM and transformers, or " + _ENVIRONMENT,
    ),
)

SETTINGS = (
    rule(
        "context_too_long",
        r"User-specified max_model_len \((?P<wanted>\d+)\) is greater than the derived max_model_len "
        r"\(\w+=(?P<most>[\d.]+)",
        "serve.max_model_len is {wanted}, and the model is made for {most} tokens",
        "set serve.max_model_len to {most} or less",
    ),
    rule(
        "layout",
        r"attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<parallel>\d+)\)",
        "the model's {heads} attention heads cannot be split over {parallel} GPUs",
        "set serve.tensor_parallel to a divisor of {heads}",
    ),
    rule(
        "layout",
        r"Weight (?:in|out)put_\w+ ?= ?(?P<size>\d+).* is not divisible",
        "weights that are quantized in blocks cannot be split over so many GPUs: each would get {size} columns",
        "lower serve.tensor_parallel; serve.pipeline_parallel takes the other GPUs",
    ),
    rule(
        "placement",
        r"Cannot provide a placement group (?:requiring|of)",
        "the Ray cluster has no room for this replica",
        "see `ray status`: nodes may be missing, or their GPUs taken by another job",
        "no",
    ),
    rule(
        "unknown_argument",
        r"error: (?P<text>unrecognized arguments: .+|argument .+|ambiguous option: .+|the following arguments .+)",
        "this vLLM does not take the command line: {text}",
        "correct or leave out that argument; `vllm serve --help=all` lists what this version knows",
    ),
    rule(
        "reasoning_parser",
        r"(?:invalid reasoning parser: |Reasoning parser ')(?P<name>[\w.\-]+)",
        "this vLLM has no reasoning parser `{name}`",
        "correct the teacher's reasoning parser, or install a newer vLLM",
    ),
    rule(
        "reasoning_parser",
        r"(?P<name>\w+) reasoning (?:parser|extractor) could not locate",
        "the tokenizer has no single tokens for the tags that the reasoning parser {name} looks for",
        "leave the reasoning parser out (reasoning_format: tags), or choose the one that goes with the model",
    ),
    rule(
        "tool_parser",
        r"invalid tool call parser: (?P<name>\S+)",
        "this vLLM has no tool call parser `{name}`",
        "leave it out, or correct it",
    ),
    rule(
        "chat_template",
        r"The supplied chat template(?: string)? \((?P<path>.{1,200}?)\) (?:looks like a file path|appears path-like)",
        "the chat template {path} cannot be read",
        "correct its path; every node must see it",
    ),
    rule(
        "unsupported_layout",
        r"^NotImplementedError\b",
        "vLLM has no code for this layout on this machine: NotImplementedError in {place}",
        "use another layout: without serve.expert_parallel or serve.data_parallel, or other GPUs",
        "always",
    ),
)
