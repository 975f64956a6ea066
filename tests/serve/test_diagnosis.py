"""Why a server ended, told from its log: every text that we know, real logs, the root among what followed, no keys."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from vllm_server import vllm_python

from distill.serve.causes_running import SIGNALS
from distill.serve.diagnosis import HIDDEN, RULES, SHOWN_LINES, diagnose, scrubbed
from distill.serve.log_lines import parsed
from distill.serve.rules import FOLLOW
from serve.vllm_messages import ISSUE, MESSAGES, Message

RECORDED = Path(__file__).parents[1] / "recorded" / "vllm-0.32"
DATA_PARALLEL = (RECORDED / "data_parallel.log").read_text(encoding="utf-8").split("\n")
READY = "INFO:     Application startup complete."
OOM = next(message for message in MESSAGES if message.line.startswith("torch.OutOfMemoryError"))
DEAD = next(message for message in MESSAGES if message.cause == "engine_dead")
WATCHDOG = next(message for message in MESSAGES if "Watchdog" in message.line)


def said(process: str, *lines: str, level: str = "ERROR", place: str = "core.py:1512") -> list[str]:
    return [f"({process} pid=20828) {level} 11-26 20:59:37 [{place}] {line}" for line in lines]


def traceback(last: str, *, file: str = "/opt/vllm/v1/worker/gpu_worker.py", function: str = "load_model") -> list[str]:
    frame = f'  File "{file}", line 1433, in {function}'
    return ["Traceback (most recent call last):", frame, '    raise RuntimeError("NCCL error: a line of code")', last]


def ids(message: Message) -> str:
    return f"{message.cause}-{MESSAGES.index(message)}"


@pytest.mark.parametrize("message", MESSAGES, ids=ids)
def test_every_known_text_names_its_cause(message: Message) -> None:
    found = diagnose(
        said("EngineCore", *traceback(message.line)) if " ERROR" not in message.line else [message.line], 1
    )
    assert found.cause == message.cause, found
    assert found.final is message.final
    assert not re.search(r"\{\w+\}", found.what + found.todo), "a group that was not filled in"
    assert any(message.line.split("] ")[-1][:60] in line for line in found.lines), found.lines
    for words in message.says:
        assert words in f"{found.what} | {found.todo}"


@pytest.mark.parametrize("message", MESSAGES, ids=ids)
def test_behind_a_prefix_it_is_the_same(message: Message) -> None:
    text = re.sub(r"^ERROR \S+ \S+ \S+ |^ERROR: +|^\[rank0\]:", "", message.line)
    bare = diagnose([message.line], 1)
    ray = f"\x1b[36m(RayWorkerWrapper pid=206994, ip=10.0.0.25)\x1b[0m ERROR 03-27 10:29:13 [worker_base.py:620] {text}"
    older = f"(VllmWorkerProcess pid=55933) ERROR 11-25 08:17:34 multiproc_worker_utils.py:229] {text}"
    nested = f"(APIServer pid=1) (EngineCore_DP0 pid=68) ERROR 02-06 16:34:06 [core.py:936] {text}"
    lines = (ray, older, nested, f"(EngineCore_DP0 pid=17374) {text}", f"[rank3]: {text}")
    if message.line.startswith(("vllm serve", "api_server")):
        lines = lines[3:]
    for line in lines:
        found = diagnose([line], 1)
        assert (found.cause, found.what) == (bare.cause, bare.what), line


def test_every_rule_has_a_text_that_it_alone_explains() -> None:
    """A rule without one is not held by the tests above; one that comes behind a wider rule never counts."""
    first = [next(r for r in RULES if r.pattern.search(parsed([m.line])[0].text)) for m in MESSAGES if told_by_rule(m)]
    assert [rule.pattern.pattern for rule in RULES if rule not in first] == []
    assert {m.cause for m in MESSAGES} == {rule.cause for rule in RULES} | {"illegal_instruction"}


def told_by_rule(message: Message) -> bool:
    return any(rule.pattern.search(message.line) for rule in RULES if rule.rank < FOLLOW or message.cause == rule.cause)


def test_nothing_quiet_is_a_cause() -> None:
    """vLLM warns of the limit of open files at every start, prints its settings, and retries taken ports."""
    lines = [line for message in MESSAGES for level in ("INFO", "WARNING", "DEBUG")
             for line in said("APIServer", message.line, level=level)]  # fmt: skip
    lines += [line for message in MESSAGES for line in said("EngineCore", message.line, place="dump_input.py:73")]
    lines += [f"    raise ValueError({message.line!r})" for message in MESSAGES]
    lines += [f"[rank1]:[W122 20:05:19.749124012 socket.cpp:204] [c10d] {OOM.line}"]
    lines += [f"h14-01:2029998:2030214 [0] NCCL INFO {OOM.line}"]
    found = diagnose(lines, 1)
    assert (found.cause, found.final) == ("unknown", False), found
    assert "exit code 1" in found.what


@pytest.mark.parametrize("end", range(300, len(DATA_PARALLEL), 40))
def test_a_real_log_of_eight_processes_leads_to_the_first_raise(end: int) -> None:
    """Data parallel 2 with experts on a CPU: workers raise, engines die of it, API servers of that."""
    found = diagnose(DATA_PARALLEL[:end], 1)
    assert found.cause == "unsupported_layout"
    assert found.what.endswith("NotImplementedError in all_gatherv (base_device_communicator.py, line 296)")
    assert found.lines == ("Worker_DP1_EP1: NotImplementedError",)
    assert found.final
    assert "serve.data_parallel" in found.todo


def test_a_real_log_of_something_unknown_still_leads_to_the_first_raise() -> None:
    lines = [line.replace("NotImplementedError", "ZeroDivisionError: division by zero") for line in DATA_PARALLEL]
    found = diagnose(lines, 1)
    assert found.cause == "unknown"
    assert "ZeroDivisionError: division by zero in all_gatherv (base_device_communicator.py, line 296)" in found.what
    assert found.lines == ("Worker_DP1_EP1: ZeroDivisionError: division by zero",)
    assert not found.final


def test_a_real_log_without_its_workers_says_that_the_engine_died() -> None:
    found = diagnose([line for line in DATA_PARALLEL if "(Worker" not in line], 1)
    assert (found.cause, found.final) == ("engine_dead", False)


def test_the_start_of_a_real_log_tells_nothing() -> None:
    start = next(index for index, line in enumerate(DATA_PARALLEL) if " ERROR " in line)
    found = diagnose(DATA_PARALLEL[:start], 3)
    assert (found.cause, found.what) == ("unknown", "vLLM ended with exit code 3 and tells no error")
    assert 0 < len(found.lines) <= SHOWN_LINES


def test_what_other_processes_say_of_a_death_does_not_hide_it() -> None:
    """Rank 1 loses its peer and says so first; what rank 0 died of comes later."""
    lines = [*said("Worker_TP1", *traceback("RuntimeError: NCCL error: unhandled system error (run with")),
             *said("EngineCore", *traceback(DEAD.line)), *said("Worker_TP0", *traceback(OOM.line))]  # fmt: skip
    assert diagnose(lines, 1).cause == "out_of_memory"
    assert diagnose(lines[:4], 1).cause == "nccl"
    assert diagnose(lines[4:8], 1).cause == "engine_dead"


def test_the_earliest_of_two_equals_counts() -> None:
    lines = traceback("OSError: [Errno 98] Address already in use"), traceback(OOM.line)
    assert diagnose([*lines[0], *lines[1]], 1).cause == "port_in_use"
    assert diagnose([*lines[1], *lines[0]], 1).cause == "out_of_memory"


def test_a_chain_of_exceptions_is_followed_to_its_beginning() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "/opt/a.py", line 1, in first',
        "KeyError: 'rope_scaling'",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "Traceback (most recent call last):",
        '  File "/opt/b.py", line 2, in second',
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
    ]
    harmless = ["Traceback (most recent call last):", '  File "/opt/c.py", line 3, in third', "ValueError: harmless"]
    found = diagnose([*harmless, *lines], 1)
    assert found.what == "vLLM ended with KeyError: 'rope_scaling' in first (a.py, line 1)"
    assert found.cause == "unknown"


def test_processes_that_write_at_once_are_kept_apart() -> None:
    """Two workers raise, line by line in turn: each exception belongs to the frame and the chain of its own process."""
    first = [
        *traceback("KeyError: 'w1'", file="/opt/right.py", function="right"),
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        *traceback("ZeroDivisionError: one", file="/opt/later.py", function="later"),
    ]
    second = traceback("ZeroDivisionError: two", file="/opt/wrong.py", function="wrong")
    turns = [*(("Worker_TP0", line) for line in first[:2]), *(("Worker_TP1", line) for line in second[:2])]
    turns += [("Worker_TP0", line) for line in first[2:5]]
    turns += [("Worker_TP1", line) for line in second[2:]]
    turns += [("Worker_TP0", line) for line in first[5:]]
    found = diagnose([line for process, text in turns for line in said(process, text)], 1)
    assert found.what == "vLLM ended with KeyError: 'w1' in right (right.py, line 1433)"


def test_after_days_of_work_the_start_is_no_cause() -> None:
    """An exception at the start that the server outlived, and a real end after it was ready."""
    harmless = said("APIServer", *traceback("OSError: [Errno 98] Address already in use"))
    late = said("Worker_TP0", *traceback("RuntimeError: NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO)"))
    assert diagnose([*harmless, READY, *late], 1).cause == "nccl"
    assert diagnose([*harmless, READY], 1).cause == "port_in_use", "nothing better"
    memory = said("Worker_TP0", *traceback(OOM.line))
    assert diagnose(memory, 1).final, "at the start it would happen again"
    assert not diagnose([READY, *memory], 1).final, "a request was too much; another start helps"


def test_what_a_server_outlived_at_its_start_is_not_what_it_died_of() -> None:
    raised = said("APIServer", *traceback("ZeroDivisionError: outlived"))
    killed = said("APIServer", "Process Helper (PID: 2) died with exit code -9", place="utils.py:599")
    assert "tells no error" in diagnose([*raised, READY], 1).what
    assert diagnose([*killed, READY], 1).cause == "engine_dead"
    late = said("EngineCore", "EngineCore encountered a fatal error.", *traceback("ValueError: late"))
    assert "ValueError: late" in diagnose([*raised, *killed, READY, *late], 1).what


@pytest.mark.parametrize("number", sorted(SIGNALS))
def test_signals_are_told_by_either_exit_code_and_by_vllm(number: int) -> None:
    cause, what, todo, _ = SIGNALS[number]
    for code in (-number, 128 + number):
        found = diagnose(['INFO:     127.0.0.1:3 - "GET /metrics HTTP/1.1" 200 OK'], code)
        assert (found.cause, found.what, found.todo) == (cause, "the server was " + what, todo)
    child = diagnose(said("EngineCore", f"Worker proc VllmWorker-0 died unexpectedly (exit code: -{number}), x"), 1)
    assert (child.cause, child.what) == (cause, "a process of the server was " + what)


def test_a_killed_child_is_no_cause_when_something_was_raised_before() -> None:
    """vLLM itself kills what does not end after a failure."""
    killed = said("APIServer", "Process ApiServer_1 (PID: 20830) died with exit code -9", place="utils.py:599")
    raised = said("Worker_TP0", "WorkerProc hit an exception.", *traceback("ZeroDivisionError: division by zero"))
    assert "ZeroDivisionError" in diagnose([*raised, *killed], 1).what
    assert diagnose([*killed, *raised], 1).cause == "host_out_of_memory"


def test_a_clean_end_and_an_empty_log() -> None:
    assert diagnose([], 0).what == "vLLM ended with exit code 0 and tells no error"
    assert diagnose([], None).what == "vLLM tells no error"
    assert diagnose(["", "  "], None).lines == ()


def test_lines_are_few_short_and_each_text_once() -> None:
    lines = [
        line
        for rank in range(8)
        for line in said(f"Worker_TP{rank}", "NCCL error: unhandled system error (" + "x" * 999)
    ]
    lines += [f"host:1:{n} [{n}] NCCL WARN Call to connect to 10.0.0.{n} failed" for n in range(20)]
    found = diagnose(lines, 1)
    assert found.cause == "nccl"
    assert len(found.lines) == SHOWN_LINES
    assert found.lines[0].startswith("Worker_TP0: NCCL error")
    assert max(map(len, found.lines)) <= 300
    assert found.lines[1].endswith("NCCL WARN Call to connect to 10.0.0.0 failed")
    assert str(found).count("\n  log: ") == SHOWN_LINES


def test_what_nccl_says_is_told_once_and_only_where_it_tells_more() -> None:
    warned = ["NCCL WARN Call to connect failed", "NCCL WARN Call to connect failed", "Last error:"]
    error = said(
        "Worker_TP0", "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)"
    )
    assert diagnose([*error, *warned], 1).lines[1:] == ("NCCL WARN Call to connect failed", "Last error:")
    assert len(diagnose([*said("Worker_TP0", OOM.line), *warned], 1).lines) == 1


SECRET = "q-Zx1.7$(k"


@pytest.mark.parametrize(
    "line",
    [
        f"ValueError: wrong key {SECRET} given",
        f"{SECRET}{SECRET}",
        "Authorization: Bearer abcdefgh12345678",
        "vllm serve: error: unrecognized arguments: --api-key abcdefgh12345678",
        "non-default args: {'api_key': ['abcdefgh12345678'], 'port': 1}",
        "VLLM_API_KEY=abcdefgh12345678 HF_TOKEN=abcdefgh12345678",
        'RuntimeError: {"hf_token": "abcdefgh12345678"}',
        "OSError: token hf_abcdefgh12345678 is invalid",
        "ConnectionError: http://user:abcdefgh12345678@proxy:3128/",
    ],
)
def test_keys_are_never_told(line: str) -> None:
    hidden = scrubbed(line, [SECRET, ""])
    assert HIDDEN in hidden
    assert "abcdefgh" not in hidden
    assert SECRET not in hidden
    found = diagnose(said("APIServer", *traceback(line)), 1, [SECRET, ""])
    assert "abcdefgh" not in str(found)
    assert SECRET not in str(found)


def test_a_secret_within_another_leaves_nothing_behind() -> None:
    assert scrubbed("abcdef", ["bcd", "abcde"]) == HIDDEN + "f"


@pytest.mark.parametrize(
    "line",
    [
        *(message.line for message in MESSAGES),
        "max_num_batched_tokens=16384",
        "KV cache size: 23,296 tokens, Maximum",
        "api_key=None",
        "special_tokens={'<think>': 128798}",
        "tokens available: 12345678",
    ],
)
def test_what_is_no_key_stays(line: str) -> None:
    assert scrubbed(line) == line


@pytest.mark.vllm
def test_the_installed_vllm_still_says_so() -> None:
    """A text that is gone from vLLM's source needs a new rule; literals that follow each other are joined here."""
    python = vllm_python()
    assert python is not None, "no vLLM here: make vllm"
    script = "import importlib.util; print(importlib.util.find_spec('vllm').submodule_search_locations[0])"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    package = Path(done.stdout.strip())
    checked = [message for message in MESSAGES if message.constants]
    assert len(checked) > 30
    assert missing(package, checked) == []
    assert missing(package, [replace(checked[0], constants=("a text that vLLM never had",))]) != [], "the check itself"


def missing(package: Path, messages: list[Message]) -> list[str]:
    gone = []
    for message in messages:
        source = package / message.source
        text = source.read_text(encoding="utf-8") if source.is_file() else ""
        joined = re.sub(r'"\s*\n\s*f?"', "", text)
        gone += [f"{message.source}: {part}" for part in message.constants if part not in joined]
    return gone


def test_texts_contain_their_constant_parts() -> None:
    """So that what is looked for in vLLM's source is what the rules are held against."""
    for message in MESSAGES:
        for part in message.constants:
            pieces = [piece for piece in re.split(r"\{[^}]*\}|%s", part) if piece.strip()]
            assert all(piece.strip() in message.line for piece in pieces), (message.line, part)
        assert (
            message.constants
            or message.source.startswith(ISSUE)
            or "/" not in message.source.split(".")[0]
            or (message.source.startswith(("transformers/", "torch/")))
        ), message.source
