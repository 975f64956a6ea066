"""What vLLM, torch, NCCL and others write when a server ends: real texts, each with where it is from.

Texts of vLLM 0.32 name their file below `vllm/` and the constant parts that must be found there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """`line`: as it ends a traceback or stands in a log; `source`: a file of vLLM's, or an issue; `says`: must be in
    the diagnosis; `final`: at the first start."""

    cause: str
    line: str
    source: str
    constants: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    final: bool = True


ISSUE = "https://github.com/"
KV = "v1/core/kv_cache_utils.py"
LAUNCHER = "entrypoints/launchers/launcher.py"
TORCH_OOM = (
    "CUDA out of memory. Tried to allocate 350.00 MiB. GPU 0 has a total capacity of 23.68 GiB of which 212.81 MiB is "
    "free. Including non-PyTorch memory, this process has 22.50 GiB memory in use."
)
HUB = "huggingface_hub"
MESSAGES = (
    Message(
        "kv_cache_too_small",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
        "initializing "
        "the engine (this flag also controls CPU memory reservation on the CPU backend, despite its name).",
        KV,
        ("No available memory for the cache blocks. ",),
        ("serve.gpu_memory_utilization", "serve.tensor_parallel"),
    ),
    Message(
        "kv_cache_too_small",
        "ValueError: To serve at least one request with the model's max seq len (131072), (8.58 GiB KV cache is "
        "needed, "
        "which is larger than the available KV cache memory (3.02 GiB). Based on the available memory, the estimated "
        "maximum model length is 46128. Try increasing `gpu_memory_utilization` (which also controls CPU memory on the "
        "CPU backend) or decreasing `max_model_len` when initializing the engine.",
        KV,
        (
            "the model's max seq len (",
            " GiB KV cache is needed",
            "available KV cache memory (",
            "maximum model length is ",
        ),
        ("131072 tokens needs 8.58 GiB", "there are 3.02 GiB", "serve.max_model_len to 46128 or less"),
    ),
    Message(
        "kv_cache_too_small",
        "ValueError: To serve at least one request with the model's max seq len (131072), (8.58 GiB KV cache is "
        "needed, "
        "which is larger than the available KV cache memory (0.01 GiB). Try increasing `gpu_memory_utilization`",
        KV,
        ("which is larger than the available KV cache memory (",),
        ("131072", "8.58 GiB", "0.01 GiB", "lower serve.max_model_len", "serve.kv_cache_dtype"),
    ),
    Message(
        "kv_cache_too_small",
        "ValueError: The model's max seq len (163840) is larger than the maximum number of tokens that can be stored "
        "in "
        "KV cache (13360). Try increasing gpu_memory_utilization or decreasing max_model_len when initializing",
        ISSUE + "deepseek-ai/DeepSeek-V2/issues/83",
        says=("163840", "serve.max_model_len to 13360 or less"),
    ),
    Message(
        "kv_cache_too_small",
        "ValueError: Cannot auto-fit max_model_len: not enough GPU memory available to serve even a single token. Try "
        "increasing `gpu_memory_utilization`.",
        KV,
        ("Cannot auto-fit max_model_len: not enough GPU memory",),
    ),
    Message(
        "gpu_memory_taken",
        "ValueError: Free memory on device cuda:0 (3.22/79.11 GiB) on startup is less than desired GPU memory "
        "utilization "
        "(0.92, 72.78 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
        "v1/worker/utils.py",
        ("Free memory on device ", "GiB) on startup is less than desired GPU memory utilization ("),
        ("3.22 of the GPU's 79.11 GiB", "72.78 GiB", "0.92", "serve.gpu_memory_utilization"),
        final=False,
    ),
    Message(
        "gpu_memory_taken",
        "ValueError: Free memory on device (3.22/4.0 GiB) on startup is less than desired GPU memory utilization (0.9, "
        "3.6 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
        ISSUE + "vllm-project/vllm/issues/25837",
        says=("3.22 of the GPU's 4.0 GiB",),
        final=False,
    ),
    Message(
        "out_of_memory",
        "ERROR 11-26 20:59:37 [gpu_model_runner.py:5147] Failed to load model - not enough GPU memory. Try lowering "
        "--gpu-memory-utilization to free memory for weights, increasing --tensor-parallel-size, or using "
        "--quantization. "
        f"See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more tips. (original error: "
        f"{TORCH_OOM})",
        "v1/worker/gpu_model_runner.py",
        ("Failed to load model - not enough GPU memory. ", "(original error: "),
        ("the weights do not fit", "350.00 MiB", "212.81 MiB of 23.68 GiB", "serve.tensor_parallel"),
    ),
    Message(
        "out_of_memory",
        f"torch.OutOfMemoryError: {TORCH_OOM}",
        ISSUE + "vllm-project/vllm/issues/16343",
        says=("GPU 0 was full: 350.00 MiB", "212.81 MiB of 23.68 GiB", "serve.max_num_seqs"),
    ),
    Message(
        "out_of_memory",
        "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests. Please try "
        "lowering "
        "`max_num_seqs` or `gpu_memory_utilization` when initializing the engine.",
        "v1/worker/gpu_model_runner.py",
        ("CUDA out of memory occurred when warming up sampler with ",),
        ("1024 requests", "serve.max_num_seqs"),
    ),
    Message(
        "out_of_memory",
        "ng30903:3063028:3066152 [3] include/alloc.h:178 NCCL WARN Cuda failure 'out of memory'",
        ISSUE + "NVIDIA/nccl/issues/1235",
    ),
    Message("out_of_memory", "RuntimeError: CUDA error: out of memory", "torch"),
    Message(
        "host_out_of_memory",
        "ValueError: Available memory on node 0 (3.2/23.54 GiB) on startup is less than desired CPU memory utilization "
        "(0.92, 21.66 GiB). On the CPU backend, the `--gpu-memory-utilization` flag controls the fraction",
        "v1/worker/cpu_worker.py",
        ("Available memory on node ", "GiB) on startup is less than desired CPU memory utilization ("),
        ("3.2 of this machine's 23.54 GiB", "21.66 GiB"),
        final=False,
    ),
    Message(
        "host_out_of_memory",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you "
        "tried "
        "to allocate 1073741824 bytes. Error code 12 (Cannot allocate memory)",
        "torch/lib/libc10.so",
        says=("1073741824 bytes",),
        final=False,
    ),
    Message("host_out_of_memory", "MemoryError", "Python", final=False),
    Message(
        "host_out_of_memory",
        "ERROR 11-26 20:59:37 [multiproc_executor.py:315] Worker proc VllmWorker-3 died unexpectedly (exit code: -9), "
        "shutting down executor.",
        "v1/executor/multiproc_executor.py",
        ("Worker proc %s died unexpectedly (exit code: %s), ",),
        ("a process of the server was killed by SIGKILL",),
        final=False,
    ),
    Message(
        "host_out_of_memory",
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): "
        "{'EngineCore_DP0': -9}",
        "v1/engine/utils.py",
        ("Engine core initialization failed. ", "Failed core proc(s): {finished}"),
        ("SIGKILL",),
        final=False,
    ),
    Message(
        "illegal_instruction",
        "RuntimeError: Process ApiServer_1 (PID: 20830) died with exit code -4",
        "v1/utils.py",
        ("died with exit code ",),
        ("SIGILL",),
    ),
    Message(
        "shared_memory",
        "RuntimeError: Insufficient space in /dev/shm for shared-memory allocation: 320 MiB required, 64 MiB free. "
        "Increase /dev/shm (e.g. --shm-size or --ipc=host).",
        "distributed/device_communicators/shm_broadcast.py",
        ("Insufficient space in ", " MiB required, ", " MiB free. "),
        ("/dev/shm has 64 MiB free and 320 MiB are needed", "--shm-size"),
    ),
    Message(
        "shared_memory",
        "Error while creating shared memory segment /dev/shm/nccl-F9ffgB (size 9637888)",
        ISSUE + "vllm-project/production-stack/issues/276",
    ),
    Message(
        "shared_memory",
        "gpu2-ru7:2143:2561 [1] include/shm.h:28 NCCL WARN Call to posix_fallocate failed : No space left on device",
        ISSUE + "NVIDIA/nccl/issues/290",
    ),
    Message("disk_full", "OSError: [Errno 28] No space left on device: '/root/.cache/vllm'", "Python"),
    Message("too_many_files", "OSError: [Errno 24] Too many open files", "Python", says=("ulimit -n",), final=False),
    Message(
        "driver_too_old",
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
        "driver by "
        "downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx",
        ISSUE + "lllyasviel/Fooocus/issues/1313",
        says=("CUDA 11040",),
    ),
    Message(
        "driver_too_old",
        "/usr/lib/python3/dist-packages/torch/cuda/__init__.py:124: UserWarning: CUDA initialization: The NVIDIA "
        "driver on "
        "your system is too old (found version 11000). Please update your GPU driver",
        ISSUE + "IEIT-Yuan/Yuan-2.0/issues/65",
    ),
    Message(
        "driver_too_old",
        "RuntimeError: CUDA error: CUDA driver version is insufficient for CUDA runtime version",
        "torch",
    ),
    Message(
        "driver_mismatch",
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling "
        "NumCudaDevices() that might have already set an error? Error 803: system has unsupported display driver / "
        "cuda "
        "driver combination",
        ISSUE + "gpustack/gpustack/issues/4678",
        says=("LD_LIBRARY_PATH",),
    ),
    Message(
        "fabric_manager",
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling "
        "NumCudaDevices() that might have already set an error? Error 802: system not yet initialized",
        ISSUE + "huggingface/huggingface_hub/issues/4134",
        says=("nvidia-fabricmanager",),
        final=False,
    ),
    Message(
        "cuda_fault",
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
        ISSUE + "SystemPanic/vllm-windows/issues/72",
        says=("an illegal memory access",),
        final=False,
    ),
    Message(
        "gpu_broken",
        "RuntimeError: CUDA error: uncorrectable ECC error encountered",
        "torch",
        says=("Xid",),
        final=False,
    ),
    Message(
        "no_gpu",
        "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` "
        "to turn "
        "on verbose logging to help debug the issue.",
        "config/device.py",
        ("Failed to infer device type",),
        ("nvidia-smi",),
    ),
    Message(
        "no_gpu",
        "  Value error, World size (8) is larger than the number of available GPUs (4) in this node. If this is "
        "intentional and you are using:".strip(),
        "config/parallel.py",
        ("World size (", ") is larger than the number of available GPUs ("),
        ("needs 8 GPUs", "sees 4", "serve.tensor_parallel"),
    ),
    Message(
        "unsupported_gpu",
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        ISSUE + "vllm-project/vllm/issues/19185",
    ),
    Message(
        "unsupported_gpu",
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla "
        "V100-PCIE-16GB "
        "GPU has compute capability 7.0. You can use float16 instead by explicitly setting the `dtype` flag in CLI",
        "platforms/cuda.py",
        ("with compute capability of at least 8.0. Your ", "has compute capability "),
        ("needs compute capability 8.0", "the Tesla V100-PCIE-16GB has 7.0"),
    ),
    Message(
        "unsupported_gpu",
        "ValueError: The quantization method modelopt_fp4 is not supported for the current GPU. Minimum capability: "
        "100. "
        "Current capability: 90.",
        "config/vllm.py",
        (
            "The quantization method ",
            "is not supported for the current GPU. Minimum capability: ",
            "Current capability: ",
        ),
        ("modelopt_fp4 need compute capability 100", "this GPU has 90"),
    ),
    Message(
        "unsupported_gpu",
        "ValueError: No valid attention backend found for cuda with AttentionSelectorConfig(head_size=576)",
        "platforms/cuda.py",
        ("No valid attention backend found for ",),
    ),
    Message("port_in_use", "OSError: [Errno 98] Address already in use", "Python", final=False),
    Message(
        "port_in_use",
        "ERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use",
        ISSUE + "vllm-project/vllm/issues/7514",
        final=False,
    ),
    Message(
        "port_in_use",
        "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. "
        "port: "
        "29500, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use",
        ISSUE + "vllm-project/vllm/issues/11617",
        final=False,
    ),
    Message("missing_package", "/usr/bin/python3: No module named vllm", "Python", says=("`vllm`", "--python")),
    Message("missing_package", "ModuleNotFoundError: No module named 'flashinfer'", "Python", says=("`flashinfer`",)),
    Message(
        "missing_library",
        "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory",
        ISSUE + "vllm-project/vllm/issues/7514",
        says=("libcuda.so.1",),
    ),
    Message(
        "model_gated",
        "OSError: You are trying to access a gated repo.",
        "transformers/utils/hub.py",
        says=("hf auth login",),
    ),
    Message(
        "model_gated",
        "Cannot access gated repo for url https://huggingface.co/meta-llama/Llama-3.1-8B/resolve/main/config.json.",
        HUB,
    ),
    Message(
        "model_not_found",
        "OSError: deepseek-ai/DeepSeek-R9 is not a local folder and is not a valid model identifier listed on "
        "'https://huggingface.co/models'",
        "transformers/utils/hub.py",
        says=("`deepseek-ai/DeepSeek-R9`",),
    ),
    Message(
        "model_not_found",
        "OSError: v9 is not a valid git identifier (branch name, tag name or commit id) that exists for this model "
        "name.",
        "transformers/utils/hub.py",
        says=("`v9`", "`revision`"),
    ),
    Message(
        "model_not_found",
        "ValueError: Invalid repository ID or local directory specified: '/models/deepseek-r1'.",
        "transformers_utils/config.py",
        ("Invalid repository ID or local directory specified:",),
    ),
    Message(
        "model_not_found",
        "ValueError: Could not detect config format for no config file found. With config_format 'auto', ensure",
        "transformers_utils/config.py",
        ("Could not detect config format for no config file found. ",),
    ),
    Message(
        "model_not_downloaded",
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the "
        "specified revision on the local disk and outgoing traffic has been disabled.",
        HUB,
    ),
    Message(
        "model_not_downloaded",
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the "
        "cached "
        "files.",
        "transformers/utils/hub.py",
    ),
    Message(
        "weights_missing",
        "RuntimeError: Cannot find any model weights with `/models/deepseek-r1`",
        "model_executor/model_loader/default_loader.py",
        ("Cannot find any model weights with `",),
        ("/models/deepseek-r1", "safetensors"),
    ),
    Message(
        "weights_missing",
        "OSError: /models/r1 does not appear to have a file named tokenizer.json. Checkout 'https://huggingface.co/'",
        "transformers/utils/hub.py",
        says=("missing: tokenizer.json",),
    ),
    Message(
        "weights_missing",
        "FileNotFoundError: No such file or directory: '/models/r1/model-00003-of-000163.safetensors'",
        "safetensors",
        says=("model-00003-of-000163.safetensors",),
    ),
    Message(
        "weights_missing",
        "ValueError: Following weights were not initialized from checkpoint: {'model.layers.3.mlp.gate.weight'}",
        "model_executor/model_loader/default_loader.py",
        ("weights were not initialized from checkpoint: ",),
        ("model.layers.3.mlp.gate.weight",),
    ),
    Message(
        "weights_broken",
        "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
        ISSUE + "QwenLM/Qwen3-VL/issues/264",
        says=("MetadataIncompleteBuffer",),
    ),
    Message(
        "weights_broken",
        "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, file not fully "
        "covered",
        "safetensors",
        says=("incomplete metadata",),
    ),
    Message(
        "remote_code",
        "RuntimeError: Failed to load the model config. If the model is a custom model not yet available in the "
        "HuggingFace "
        "transformers library, consider setting `trust_remote_code=True` in LLM or using the `--trust-remote-code` "
        "flag",
        "transformers_utils/config.py",
        ("`trust_remote_code=True` in LLM",),
        ("trust_remote_code: true",),
    ),
    Message(
        "remote_code",
        "ValueError: The repository some/model contains custom code which must be executed to correctly load the "
        "model.",
        "transformers/dynamic_module_utils.py",
    ),
    Message(
        "unsupported_model",
        "ValueError: Model architectures ['DeepseekV9ForCausalLM'] are not supported for now. Supported architectures: "
        "dict_keys(['AfmoeForCausalLM'])",
        "model_executor/models/registry.py",
        ("Model architectures {architectures} are not supported for now. ",),
        ("['DeepseekV9ForCausalLM']",),
    ),
    Message(
        "unsupported_model",
        "ValueError: Model architecture PhiForCausalLM was supported in vLLM until v0.9.1, and is not supported "
        "anymore.",
        "model_executor/models/registry.py",
        ("Model architecture {arch} was supported in vLLM until ",),
        ("PhiForCausalLM",),
    ),
    Message(
        "unsupported_model",
        "ValueError: The checkpoint you are trying to load has model type `deepseek_v9` but Transformers does not "
        "recognize "
        "this architecture. This could be because of an issue with the checkpoint",
        "transformers/models/auto/configuration_auto.py",
        says=("deepseek_v9",),
    ),
    Message(
        "context_too_long",
        "  Value error, User-specified max_model_len (262144) is greater than the derived max_model_len "
        "(max_position_embeddings=163840 or model_max_length=None in model's config.json).".strip(),
        "config/model.py",
        ("User-specified max_model_len (", ") is greater than the derived max_model_len ("),
        ("262144", "serve.max_model_len to 163840 or less"),
    ),
    Message(
        "layout",
        "  Value error, Total number of attention heads (128) must be divisible by tensor parallel size (6).".strip(),
        "config/model.py",
        ("Total number of attention heads (", ") must be divisible by tensor parallel size ("),
        ("128 attention heads", "6 GPUs", "serve.tensor_parallel"),
    ),
    Message(
        "placement",
        "ValueError: Cannot provide a placement group requiring 16.0 GPUs (placement_group_specs=[{'GPU': 1.0}]) "
        "within "
        "1800 seconds.",
        "v1/executor/ray_utils.py",
        ("Cannot provide a placement group requiring ",),
        ("ray status",),
        final=False,
    ),
    Message(
        "unknown_argument",
        "api_server.py: error: unrecognized arguments: --no-such-option 3",
        "utils/argparse_utils.py",
        ("unrecognized arguments:",),
        ("unrecognized arguments: --no-such-option 3",),
    ),
    Message(
        "unknown_argument",
        "vllm serve: error: argument --tensor-parallel-size/-tp: invalid int value: 'many'",
        "Python",
        says=("--tensor-parallel-size/-tp: invalid int value: 'many'",),
    ),
    Message(
        "reasoning_parser",
        "KeyError: 'invalid reasoning parser: deepseek_r9 (chose from { deepseek_r1,deepseek_v3 })'",
        LAUNCHER,
        ("invalid reasoning parser: {reasoning_parser} ",),
        ("`deepseek_r9`",),
    ),
    Message(
        "reasoning_parser",
        "KeyError: \"Reasoning parser 'deepseek_r9' not found. Available parsers: deepseek_r1, deepseek_v3\"",
        "reasoning/abs_reasoning_parsers.py",
        ("Reasoning parser '{name}' not found. ",),
        ("`deepseek_r9`",),
    ),
    Message(
        "reasoning_parser",
        "RuntimeError: DeepSeekR1ReasoningParser reasoning parser could not locate think start/end tokens in the "
        "tokenizer!",
        "reasoning/basic_parsers.py",
        (" reasoning parser could not locate think start/end tokens",),
        ("DeepSeekR1ReasoningParser", "reasoning_format"),
    ),
    Message(
        "tool_parser",
        "KeyError: 'invalid tool call parser: nothing (chose from { hermes,mistral })'",
        LAUNCHER,
        ("invalid tool call parser: {args.tool_call_parser} ",),
        ("`nothing`",),
    ),
    Message(
        "chat_template",
        "vllm.exceptions.VLLMValidationError: The supplied chat template (./no-such.jinja) looks like a file path, "
        "but it "
        "failed to be opened. Tried: ./no-such.jinja and chat_templates/no-such.jinja. Reason: [Errno 2]",
        "renderers/chat_utils.py",
        ("The supplied chat template ({chat_template}) looks like a file path",),
        ("./no-such.jinja",),
    ),
    Message(
        "chat_template",
        "vllm.exceptions.VLLMValidationError: The supplied chat template string (no/such.jinja) appears path-like, but "
        "doesn't exist! Tried: no/such.jinja",
        "renderers/chat_utils.py",
        ("The supplied chat template string ({chat_template}) appears path-like",),
        ("no/such.jinja",),
    ),
    Message("unsupported_layout", "NotImplementedError", "recorded: data_parallel.log"),
    Message(
        "layout",
        "ValueError: Weight input_size_per_partition = 1152 is not divisible by weight quantization block_k = 128.",
        "model_executor/layers/quantization/utils/fp8_utils.py",
        ("Weight input_size_per_partition = {input_size_per_partition} is not divisible by ",),
        ("1152",),
    ),
    Message(
        "nccl",
        "[rank0]:[E ProcessGroupNCCL.cpp:563] [Rank 0] Watchdog caught collective operation timeout: "
        "WorkNCCL(SeqNum=2, "
        "OpType=ALLREDUCE, NumelIn=134217728, NumelOut=134217728, Timeout(ms)=600000) ran for 600059 milliseconds "
        "before "
        "timing out.",
        ISSUE + "vllm-project/vllm/issues/6042",
        says=("600000 ms", "ALLREDUCE", "--check"),
        final=False,
    ),
    Message(
        "nccl",
        "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
        "distributed/device_communicators/pynccl_wrapper.py",
        ("NCCL error: {error_str}",),
        ("NCCL says: unhandled system error", "--check"),
        final=False,
    ),
    Message(
        "nccl",
        "torch.distributed.DistBackendError: NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.hpp:268, "
        "remote "
        "process exited or there was a network error, NCCL version 2.21.5",
        ISSUE + "NVIDIA/nccl/issues/2076",
        says=("remote process exited or there was a network error",),
        final=False,
    ),
    Message(
        "nccl",
        "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. 1/2 clients joined.",
        "torch",
        says=("DistStoreError",),
        final=False,
    ),
    Message(
        "worker_timeout",
        "TimeoutError: RPC call to execute_model timed out.",
        "v1/executor/multiproc_executor.py",
        ("RPC call to {method} timed out.",),
        ("execute_model",),
        final=False,
    ),
    Message(
        "node_lost",
        "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.",
        ISSUE + "verl-project/verl/issues/4921",
        final=False,
    ),
    Message(
        "engine_dead",
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the "
        "root "
        "cause.",
        "v1/engine/exceptions.py",
        ("EngineCore encountered an issue. See stack trace (above) for the root cause.",),
        final=False,
    ),
)
