"""`distill chat` as a user meets it: a real terminal (a pty), a pipe, a real tiny model and a scripted server."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from conftest import tiny_model
from examine.material import a_student
from http_teacher import Fault, HttpTeacher, Said

from distill.chat import Conversation, remarks
from distill.contract import STEP_BY_STEP
from distill.engines.streaming import Asked, ContextFullError, Ending, Piece
from distill.errors import EndpointError
from distill.records import Message, Sampling
from distill.talkers import contract_beside, partner

DIM, RESET = "\x1b[2m", "\x1b[0m"
STOPS = 12
"""Ctrl-C strikes between any two instructions: once is luck."""
PLAIN = Asked(Sampling(), None, None)


def environment() -> dict[str, str]:
    changed = {"OMP_NUM_THREADS": "1", "TERM": "xterm-256color", "PYTHONUNBUFFERED": "1"}
    return {**{k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}, **changed}


def piped(*arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distill.cli", "chat", *map(str, arguments)]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, env=environment(), timeout=120, check=False
    )


class Terminal:
    """`distill chat` behind a real terminal: what it shows, and what is typed."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "distill.cli", "chat", *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(),
            start_new_session=True,
            preexec_fn=lambda: _own_terminal(slave),
        )
        os.close(slave)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def stop_at_the_prompt(self, seconds: float = 120.0) -> None:
        """Types Ctrl-C, again every two seconds until a line break shows that it was taken: Python's `input` does not
        see one between printing its prompt and reading until the next key."""
        deadline = time.monotonic() + seconds
        self.type("\x03")
        while not self.shows("\n", 2.0):
            assert time.monotonic() < deadline, f"Ctrl-C is not taken: {self.shown!r}"
            self.type("\x03")

    def shows(self, text: str, seconds: float) -> bool:
        """Reads until `text` stands there; whether it came in time."""
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            if time.monotonic() >= deadline:
                return False
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self.master, 65_536).decode(errors="replace")
                except OSError:  # the other end is closed
                    assert text in self.shown, f"it ended without {text!r}: {self.shown!r}"
        return True

    def wait_for(self, text: str, seconds: float = 120.0) -> str:
        """Reads until `text` stands there; what came up to it is taken off and returned."""
        assert self.shows(text, seconds), f"no {text!r} in {self.shown!r}"
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def leave(self) -> int:
        code = self.process.wait(20)
        os.close(self.master)
        return code


def _own_terminal(slave: int) -> None:
    """Makes the pty the controlling terminal, so that Ctrl-C typed there is a signal."""
    import fcntl
    import termios

    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield start
    for one in opened:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def counting(question: str) -> Said:
    return Said(f"answer to {question}", reasoning=f"thoughts about {question}")


# --- a terminal ----------------------------------------------------------------------------------------------------


def test_a_conversation_on_a_terminal(terminal: Callable[..., Terminal]) -> None:
    with HttpTeacher(counting) as teacher:
        chat = terminal(teacher.url, "--model", teacher.model)
        assert "/new" in chat.wait_for("> ")
        chat.type("\n")
        chat.wait_for("> ")
        chat.type("one\n")
        told = chat.wait_for("> ")
        assert f"{DIM}thoughts" in told
        assert DIM not in told[told.index("answer") - 5 :], "the answer is not dimmed"
        assert "<think>" not in told
        chat.type("two\n")
        chat.wait_for("answer")
        chat.wait_for("> ")
        chat.type("/new\n")
        chat.wait_for("forgotten")
        chat.type("three\n")
        chat.wait_for("answer")
        chat.wait_for("> ")
        chat.type("/what\n")
        chat.wait_for("there is no /what")
        chat.type("/exit\n")
        assert chat.leave() == 0
    asked = [seen.body["messages"] for seen in teacher.chats]
    assert [len(messages) for messages in asked] == [1, 3, 1], "an empty line asks nothing; /new begins afresh"
    assert asked[1] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "answer to one"},
        {"role": "user", "content": "two"},
    ], "earlier reasoning is dropped"


def test_ctrl_c_stops_an_answer_and_at_the_prompt_leaves(terminal: Callable[..., Terminal]) -> None:
    long = lambda question: Said("word " * 2_000) if question == "long" else Said("short")  # noqa: E731
    with HttpTeacher(long, pause=0.001) as teacher:
        chat = terminal(teacher.url, "--model", teacher.model)
        chat.wait_for("> ")
        for _ in range(STOPS):
            chat.type("long\n")
            chat.wait_for("word word word")
            chat.type("\x03")
            chat.wait_for("(stopped)")
            chat.wait_for("> ")
        chat.type("again\n")
        chat.wait_for("short")
        chat.wait_for("> ")
        chat.stop_at_the_prompt()
        assert chat.leave() == 0
        assert teacher.hung_up >= STOPS, "the server does not go on writing for nobody"


def test_ctrl_c_stops_a_local_model_and_ctrl_d_leaves(terminal: Callable[..., Terminal], endless_folder: Path) -> None:
    chat = terminal(str(endless_folder), "--seed", "1", "--temperature", "1")
    chat.wait_for("> ")
    chat.type("hello\n")
    chat.wait_for(DIM)
    time.sleep(0.5)
    chat.type("\x03")
    chat.wait_for("(stopped)", 20)
    chat.wait_for("> ")
    chat.type("more\n")
    chat.wait_for(DIM)
    chat.type("\x03")
    chat.wait_for("> ")
    chat.type("\x04")
    assert chat.leave() == 0
    assert "Traceback" not in chat.shown


def test_a_model_cannot_steer_the_terminal(terminal: Callable[..., Terminal]) -> None:
    with HttpTeacher(lambda question: Said("\x1b]0;owned\x07 \x1b[31mred")) as teacher:
        chat = terminal(teacher.url, "--model", teacher.model)
        chat.wait_for("> ")
        chat.type("hi\n")
        told = chat.wait_for("red")
        chat.wait_for("> ")
        chat.type("\x04")
        assert chat.leave() == 0
    assert "\x1b]0" not in told
    assert "\x1b[31m" not in told


def test_a_broken_server_ends_neither_conversation_nor_command(terminal: Callable[..., Terminal]) -> None:
    once = lambda number, seen: Fault("status", 500, message="dizzy") if number == 0 else None  # noqa: E731
    with HttpTeacher(counting, faults=once) as teacher:
        chat = terminal(teacher.url, "--model", teacher.model)
        chat.wait_for("> ")
        chat.type("one\n")
        chat.wait_for("dizzy")
        chat.wait_for("> ")
        chat.type("two\n")
        chat.wait_for("answer to two")
        chat.wait_for("> ")
        chat.type("\x04")
        assert chat.leave() == 0


# --- a pipe --------------------------------------------------------------------------------------------------------


def test_one_question_in_a_pipe_is_plain_text_with_tags() -> None:
    with HttpTeacher(counting) as teacher:
        told = piped(teacher.url, "two", "--model", teacher.model, "--system", "Be brief.", "--kind", "math")
    assert told.returncode == 0, told.stderr
    assert (
        told.stdout == f"<think>\nthoughts about two\n\n{STEP_BY_STEP}\n</think>\n\nanswer to two\n\n{STEP_BY_STEP}\n"
    )
    assert teacher.chats[0].body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "\x1b" not in told.stdout


def test_each_piped_line_is_a_question_of_its_own() -> None:
    with HttpTeacher(counting) as teacher:
        told = piped(teacher.url, "--model", teacher.model, "--json", text="one\n\n  two  \n")
    assert told.returncode == 0, told.stderr
    replies = json.loads(told.stdout)["replies"]
    assert [(reply["question"], reply["answer"]) for reply in replies] == [
        ("one", "answer to one"),
        ("two", "answer to two"),
    ]
    assert replies[0]["reasoning"] == "thoughts about one"
    assert [len(seen.body["messages"]) for seen in teacher.chats] == [1, 1]


@pytest.mark.parametrize("encoding", ["utf-8:strict", "utf-8:surrogateescape"])
def test_bytes_that_are_no_text_are_asked_as_such(encoding: str, student_folder: Path) -> None:
    command = [sys.executable, "-m", "distill.cli", "chat", "--json", "--max-tokens", "4"]
    changed = {**environment(), "PYTHONIOENCODING": encoding}
    with HttpTeacher(counting) as teacher:
        served = [teacher.url, "--model", teacher.model]
        asked: list[tuple[list[str | bytes], bytes]] = [
            ([*served], b"2 + \xff?\n"),
            ([*served, b"2 + \xff?"], b""),
        ]
        if encoding == "utf-8:strict":
            asked.append(([str(student_folder), b"2 + \xff?"], b""))
        for arguments, given in asked:
            told = subprocess.run(
                [*command, *arguments], input=given, capture_output=True, env=changed, timeout=120, check=False
            )
            assert told.returncode == 0, told.stderr
            assert json.loads(told.stdout)["replies"][0]["question"] == "2 + \ufffd?"


def test_a_cut_answer_says_so() -> None:
    with HttpTeacher(counting) as teacher:
        told = piped(teacher.url, "two", "--model", teacher.model, "--max-tokens", "2")
    assert told.stdout == "<think>\nthoughts about\n</think>\n"
    assert "--max-tokens" in told.stderr
    assert "no answer followed" in told.stderr


def test_a_student_answers_under_its_own_contract(student_folder: Path) -> None:
    first = piped(student_folder, "What is 2 + 2?", "--seed", "5", "--max-tokens", "20")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("<think>\n"), "the forced prefix is an open tag"
    full = piped(student_folder, "What is 2 + 2? " * 5, "--context", "16")
    assert full.returncode == 2
    assert "fills the context of 16" in full.stderr
    run = student_folder.parent / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("name: x\n")
    lost = piped(run, "x")
    assert lost.returncode == 2
    assert "no student yet" in lost.stderr
    (run / "student").symlink_to(student_folder)
    assert piped(run, "What is 2 + 2?", "--seed", "5", "--max-tokens", "20").stdout == first.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere", "x"), 2, "there is no nowhere"),
        (("http://127.0.0.1:9/v1", "x"), 2, "--model NAME"),
        (("http://127.0.0.1:9/v1", "x", "--model", "m"), 1, "does not answer"),
        (("nowhere", "x", "--kind", "poem"), 2, "no kind 'poem'"),
        (("nowhere",), 2, "there is no question"),
        (("nowhere", "x", "--temperature", "-1"), 2, "--temperature"),
        ((".", "x", "--model", "m"), 2, "--model NAME is for a server"),
    ],
)
def test_what_can_be_done_wrong(arguments: tuple[str, ...], code: int, words: str, tmp_path: Path) -> None:
    told = piped(*arguments)
    assert told.returncode == code, told.stderr
    assert words in told.stderr
    assert "Traceback" not in told.stderr


# --- the conversation ----------------------------------------------------------------------------------------------


class Scripted:
    """A Talker that says what it is told to and remembers what it was asked."""

    def __init__(self, *replies: list[Piece | Ending | type[BaseException]]) -> None:
        self.replies, self.asked, self.closed = list(replies), [], 0  # type: ignore[var-annotated]

    def reply(self, messages: list[Message], asked: Asked) -> Generator[Piece | Ending, None, None]:
        self.asked.append(messages)
        try:
            for part in self.replies.pop(0):
                if isinstance(part, type):
                    raise part("as scripted")
                yield part
        finally:
            self.closed += 1

    def close(self) -> None:
        pass


def conversation(talker: Scripted, **changed: object) -> Conversation:
    settings: dict[str, object] = {"system": None, "instruction": None, "kind": "open", **changed}
    return Conversation(talker, PLAIN, **settings)  # type: ignore[arg-type]


def test_a_stopped_or_failed_question_leaves_the_history_whole() -> None:
    talker = Scripted(
        [Piece("reasoning", "hm"), KeyboardInterrupt],
        [Piece("answer", "half"), EndpointError],
        [Piece("answer", "half an answer"), KeyboardInterrupt],
        [Piece("answer", "4"), Ending("stop", 1)],
    )
    talk = conversation(talker)
    assert talk.ask("a", lambda piece: None).reason == "stopped"
    with pytest.raises(EndpointError):
        talk.ask("b", lambda piece: None)
    talk.ask("c", lambda piece: None)
    talk.ask("d", lambda piece: None)
    assert [m["content"] for m in talker.asked[3]] == ["c", "half an answer", "d"]
    assert talker.closed == 4, "a reply that is left is closed, which stops the model"


def test_reasoning_found_out_late_is_dropped_from_later_turns() -> None:
    talker = Scripted([Piece("answer", "so it is\n</think>\n\n4"), Ending("stop")], [Ending("stop")])
    talk = conversation(talker)
    talk.ask("a", lambda piece: None)
    talk.ask("b", lambda piece: None)
    assert [m["content"] for m in talker.asked[1]] == ["a", "4", "b"]


def test_instruction_by_kind_and_system() -> None:
    talker = Scripted([Ending("stop")], [Ending("stop")])
    conversation(talker, instruction={"math": "Box it."}, kind="math", system="Be brief.").ask("1+1", lambda p: None)
    conversation(talker, instruction={"math": "Box it."}).ask("1+1", lambda p: None)
    assert [m["content"] for m in talker.asked[0]] == ["Be brief.", "1+1\n\nBox it."]
    assert [m["content"] for m in talker.asked[1]] == ["1+1"]


def test_a_full_context_offers_new() -> None:
    talk = conversation(Scripted([Piece("answer", "x"), Ending("context", 5)], [ContextFullError]))
    assert any("/new" in remark for remark in remarks(talk.ask("a", lambda piece: None)))
    with pytest.raises(ContextFullError):
        talk.ask("b", lambda piece: None)


# --- models --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def student_folder(tmp_path_factory: pytest.TempPathFactory, model_folder: Callable[[str], Path]) -> Path:
    """A tiny random model with a student's contract beside it."""
    return a_student(tmp_path_factory.mktemp("chat") / "student", model_folder)


@pytest.fixture(scope="module")
def endless_folder(tmp_path_factory: pytest.TempPathFactory, student_folder: Path) -> Path:
    """The same, but no token stops it and its context is long."""
    folder = tmp_path_factory.mktemp("endless") / "student"
    shutil.copytree(student_folder, folder)
    for name, changed in (
        ("config.json", {"eos_token_id": 100_000, "max_position_embeddings": 30_000}),
        ("generation_config.json", {"eos_token_id": 100_000}),
    ):
        content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps({**content, **changed}))
    return folder


def test_a_folder_without_a_contract_uses_its_own_template(model_folder: Callable[[str], Path]) -> None:
    folder = model_folder("llama")
    assert contract_beside(folder) is None
    who = partner(str(folder), model=None, context=200)
    assert who.contract is None
    assert who.instruction() == {"math": STEP_BY_STEP}
    *pieces, ending = who.talker.reply([{"role": "user", "content": "hi"}], Asked(Sampling(), 8, 1))
    assert isinstance(ending, Ending)
    assert pieces


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_folder_talks_quietly(student_folder: Path, tmp_path: Path, bits: int) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_quant_type="nf4")
    tiny_model("qwen2", hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "whole")
    place = tmp_path / "whole"
    model = AutoModelForCausalLM.from_pretrained(place, quantization_config=settings, device_map={"": "cpu"})
    shutil.copytree(student_folder, tmp_path / "quantized", ignore=shutil.ignore_patterns("*.safetensors"))
    model.save_pretrained(tmp_path / "quantized")
    told = piped(tmp_path / "quantized", "What is 2 + 2?", "--seed", "1", "--max-tokens", "5")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("<think>\n")
    assert set(told.stderr.splitlines()) <= {"(cut after 5 tokens: --max-tokens)", "(no answer followed)"}


def test_a_model_that_fails_is_no_traceback(student_folder: Path, tmp_path: Path) -> None:
    """Its template refuses every message, as some do for a system prompt."""
    folder = tmp_path / "student"
    shutil.copytree(student_folder, folder, ignore=shutil.ignore_patterns("distill.json"))
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system prompts here') }}")
    told = piped(folder, "hi", "--system", "Be brief.")
    assert told.returncode == 1
    assert "Traceback" not in told.stderr
    assert "no system prompts here" in told.stderr
