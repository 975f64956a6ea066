"""Causes by which a server ends for what is short or what another process did: memory, files, NCCL, signals. A table.

The texts are those of vLLM 0.32 (a test looks for them in the installed one), of torch, NCCL and Ray; older versions'
texts, where they differ, are from issues of vLLM's.
"""

from __future__ import annotations

from distill.serve.rules import FOLLOW, PEER, Final, rule

_N = r"[\d.,]+"
_SIZE = r"[\d.]+ \w+"
_WEIGHTS = "use more GPUs (serve.tensor_parallel), or a teacher with smaller weights"
_CHECK = "run the same command with `--check`, and with NCCL_DEBUG=INFO for NCCL's own account"

MEMORY = (
    rule(
        "kv_cache_too_small",
        r"No available memory for the cache blocks",
        "the weights leave no memory for a KV cache",
        "raise serve.gpu_memory_utilization, or " + _WEIGHTS,
    ),
    rule(
        "kv_cache_too_small",
        rf"max seq len \((?P<length>\d+)\), \(?(?P<needed>{_N}) GiB KV cache is needed.*available KV cache memory "
        rf"\((?P<free>{_N}) GiB\).*estimated maximum model length is (?P<fits>\d+)",
        "one request of {length} tokens needs {needed} GiB of KV cache, and there are {free} GiB",
        "set serve.max_model_len to {fits} or less, serve.kv_cache_dtype to fp8, raise serve.gpu_memory_utilization, "
        "or use more GPUs (serve.tensor_parallel)",
    ),
    rule(
        "kv_cache_too_small",
        rf"max seq len \((?P<length>\d+)\), \(?(?P<needed>{_N}) GiB KV cache is needed.*available KV cache memory "
        rf"\((?P<free>{_N}) GiB\)",
        "one request of {length} tokens needs {needed} GiB of KV cache, and there are {free} GiB",
        "lower serve.max_model_len, set serve.kv_cache_dtype to fp8, raise serve.gpu_memory_utilization, or use more "
        "GPUs (serve.tensor_parallel)",
    ),
    rule(
        "kv_cache_too_small",
        r"max seq len \((?P<length>\d+)\) is larger than the maximum number of tokens that can be stored in KV cache "
        r"\((?P<fits>\d+)\)",
        "the KV cache holds {fits} tokens, fewer than one request of {length}",
        "set serve.max_model_len to {fits} or less, serve.kv_cache_dtype to fp8, or raise serve.gpu_memory_utilization",
    ),
    rule(
        "kv_cache_too_small",
        r"Cannot auto-fit max_model_len: not enough GPU memory",
        "the weights leave no memory for even one token of KV cache",
        "raise serve.gpu_memory_utilization, or " + _WEIGHTS,
    ),
    rule(
        "gpu_memory_taken",
        rf"Free memory on device(?: \S+)? \((?P<free>{_N})/(?P<total>{_N}) GiB\) on startup is less than desired GPU "
        rf"memory utilization \((?P<share>{_N}), (?P<wanted>{_N}) GiB\)",
        "only {free} of the GPU's {total} GiB were free at the start, less than the {wanted} GiB that "
        "serve.gpu_memory_utilization {share} asks for",
        "end the other process on that GPU (nvidia-smi names it), or lower serve.gpu_memory_utilization",
        "no",
    ),
    rule(
        "out_of_memory",
        rf"Failed to load model - not enough GPU memory.*Tried to allocate (?P<wanted>{_SIZE})\..*total capacity of "
        rf"(?P<total>{_SIZE}) of which (?P<free>{_SIZE}) is free",
        "the weights do not fit the GPU: {wanted} more were wanted and {free} of {total} were free",
        _WEIGHTS,
    ),
    rule(
        "out_of_memory",
        r"out of memory occurred when warming up \w+ with (?P<requests>\d+) dummy requests",
        "the GPU's memory was full before {requests} requests at once could be tried",
        "lower serve.max_num_seqs or serve.gpu_memory_utilization",
    ),
    rule(
        "out_of_memory",
        rf"out of memory\. Tried to allocate (?P<wanted>{_SIZE})\. GPU (?P<gpu>\d+) has a total capacity of "
        rf"(?P<total>{_SIZE}) of which (?P<free>{_SIZE}) is free",
        "GPU {gpu} was full: {wanted} more were wanted and {free} of {total} were free",
        "lower serve.gpu_memory_utilization, serve.max_num_seqs or serve.max_model_len, or use more GPUs "
        "(serve.tensor_parallel)",
        "loading",
    ),
    rule(
        "out_of_memory",
        r"(?:CUDA|HIP) (?:error: )?out of memory|Cuda failure(?: \d+)? 'out of memory'|not enough GPU memory",
        "the memory of a GPU was full",
        "lower serve.gpu_memory_utilization, serve.max_num_seqs or serve.max_model_len, or use more GPUs "
        "(serve.tensor_parallel)",
        "loading",
    ),
    rule(
        "host_out_of_memory",
        rf"Available memory on node \S+ \((?P<free>{_N})/(?P<total>{_N}) GiB\) on startup is less than desired CPU "
        rf"memory utilization \({_N}, (?P<wanted>{_N}) GiB\)",
        "only {free} of this machine's {total} GiB were free at the start, and {wanted} GiB are asked for",
        "lower serve.gpu_memory_utilization, which counts for the machine's memory on a CPU, or end other processes",
        "no",
    ),
    rule(
        "host_out_of_memory",
        r"DefaultCPUAllocator: (?:can't allocate|not enough) memory: you tried to allocate (?P<bytes>\d+) bytes",
        "this machine's memory was full when {bytes} bytes more were wanted",
        "free memory on this machine, or start fewer replicas on it",
        "no",
    ),
    rule(
        "host_out_of_memory",
        r"^MemoryError\b|\[Errno 12\] Cannot allocate memory|killed due to the node running low on memory",
        "this machine's memory was full",
        "free memory on this machine, or start fewer replicas on it",
        "no",
    ),
    rule(
        "shared_memory",
        rf"Insufficient space in (?P<folder>\S+) for .*: (?P<wanted>{_N}) MiB required, (?P<free>{_N}) MiB free",
        "{folder} has {free} MiB free and {wanted} MiB are needed",
        "give the container more shared memory: --shm-size=16g or --ipc=host",
    ),
    rule(
        "shared_memory",
        r"Error while creating shared memory segment|posix_fallocate failed ?: No space left|/dev/shm.*No space left|"
        r"unable to (?:open|allocate|resize) shared memory|unable to mmap .*shared",
        "there is too little shared memory in /dev/shm",
        "give the container more shared memory: --shm-size=16g or --ipc=host; /dev/shm may also hold files of servers "
        "that were killed",
    ),
    rule(
        "disk_full",
        r"\[Errno 28\] No space left on device|\(os error 28\)",
        "a disk is full",
        "free some space where the model, vLLM's cache or the temporary files are",
    ),
    rule(
        "too_many_files",
        r"\[Errno 24\] Too many open files",
        "the server may not open more files and connections",
        "raise the limit before the start: ulimit -n 65535",
        "no",
    ),
)

GPU = (
    rule(
        "gpu_broken",
        r"uncorrectable (?:ECC|NVLink) error|fallen off the bus|GPU is lost",
        "a GPU is broken or gone",
        "look into `nvidia-smi -q` and the kernel's log for its Xid, and take that GPU or node out",
        "no",
    ),
    rule(
        "cuda_fault",
        r"CUDA error: (?P<text>an illegal memory access|device-side assert|unspecified launch failure|"
        r"misaligned address)",
        "code on a GPU went wrong: {text}",
        "where it comes again and again: update vLLM and the driver, and see `nvidia-smi -q`",
        "no",
    ),
)

PEERS = (
    rule(
        "nccl",
        r"Watchdog caught collective operation timeout: .*OpType=(?P<kind>\w+).*Timeout\(ms\)=(?P<limit>\d+)",
        "GPUs waited {limit} ms for each other in {kind} and gave up: one of them hangs or is gone",
        _CHECK,
        "no",
        PEER,
    ),
    rule(
        "nccl",
        r"NCCL error(?: in: \S+)?[:,] ?(?P<text>[^(]{3,120})",
        "the GPUs cannot talk to each other, NCCL says: {text}",
        _CHECK,
        "no",
        PEER,
    ),
    rule(
        "nccl",
        r"\b(?P<text>nccl(?:System|UnhandledCuda|Internal|Remote|InvalidUsage)\w*|DistBackendError|DistNetworkError|"
        r"DistStoreError)\b",
        "the processes of the server cannot talk to each other: {text}",
        _CHECK,
        "no",
        PEER,
    ),
    rule(
        "worker_timeout",
        r"RPC call to (?P<method>\w+) timed out",
        "a worker did not answer {method} in time: it hangs",
        _CHECK,
        "no",
        PEER,
    ),
    rule(
        "node_lost",
        r"ActorDiedError|ActorUnavailableError|NodeDiedError|The node .* has been (?:terminated|marked dead)",
        "a Ray worker or its node died",
        "see `ray status`; the log of that node's raylet says why",
        "no",
        PEER,
    ),
)

ENGINE_DEAD = rule(
    "engine_dead",
    r"EngineDeadError|Engine core initialization failed|EngineCore encountered an issue|EngineCore failed to start|"
    r"Worker failed with error|died unexpectedly|died with exit code",
    "vLLM's engine died, and its log does not say of what",
    "look into the logs of the replica's other nodes",
    "no",
    FOLLOW,
)

_MEMORY_KILL = (
    "free memory on this machine, or start fewer replicas on it; `dmesg` or the cgroup's memory.events say so"
)
SIGNALS: dict[int, tuple[str, str, str, Final]] = {
    9: ("host_out_of_memory", "killed by SIGKILL, mostly the kernel's answer to a full memory", _MEMORY_KILL, "no"),
    4: (
        "illegal_instruction",
        "ended by SIGILL: this vLLM was built for CPUs with instructions that this one lacks",
        "install a vLLM that was built for this CPU (without AVX-512), or use another machine",
        "always",
    ),
    7: (
        "shared_memory",
        "ended by SIGBUS, mostly because /dev/shm is full",
        "give the container more shared memory: --shm-size=16g or --ipc=host",
        "loading",
    ),
    11: ("crashed", "ended by SIGSEGV, a fault in compiled code", "look into the log; update driver or vLLM", "no"),
    6: ("crashed", "ended by SIGABRT, given up by compiled code", "look into the log; update driver or vLLM", "no"),
    15: ("stopped", "told to end by SIGTERM", "start it again, unless it was meant", "no"),
}
"""Number → cause, what happened, what to do, final. vLLM's own processes are told by the same numbers."""

TOLD_BY_NCCL = ("nccl", "shared_memory")
"""Causes of which NCCL's own lines tell more."""
