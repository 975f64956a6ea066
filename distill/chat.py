"""`distill chat`: a conversation on the terminal, or answers to the questions of a pipe.

Part of the command line. The model's side is a Talker of engines/; here are the prompt, the printing and the history.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from distill.contract import CLOSE, OPEN, prompt_messages
from distill.engines.streaming import Asked, ContextFullError, Ending, Piece, Talker
from distill.errors import DistillError, Interrupted, UsageError
from distill.progress import say
from distill.records import Message, Sampling, storable

PROMPT = "> "
HELP = "/new forgets the conversation, /exit or Ctrl-D leaves, Ctrl-C stops an answer"

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters but tab and line break: a model must not be able to steer the terminal."""

Write = Callable[[Piece], None]


@dataclass(frozen=True, slots=True)
class Said:
    """A whole reply; `reason` is `stopped` where the user ended it."""

    reasoning: str
    answer: str
    reason: Literal["stop", "length", "context", "stopped"]
    tokens: int | None = None

    @property
    def kept(self) -> str:
        """What later turns see: behind a closing tag in the answer, where nobody could know that it was reasoning."""
        return self.answer.rpartition(CLOSE)[2].strip()


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says about a conversation; defaults are there, R1's sampling (R1's model card)."""

    temperature: float
    top_p: float
    max_tokens: int | None
    context: int
    seed: int | None
    system: str | None
    kind: str
    model: str | None
    """The model's name at a server."""
    as_json: bool


def chat(where: str, question: str | None, options: Options) -> dict[str, Any] | None:
    """Talks with the model that `where` names: one question, those of a pipe, or a conversation on the terminal.

    Returns what was said where it answered questions. Raises UsageError, EndpointError, Interrupted.
    """
    from distill.talkers import check_kind, partner

    _take_any_bytes()
    talking = question is None and sys.stdin.isatty()
    if talking and options.as_json:
        raise UsageError("--json is for questions with an end", todo="give a question, or pipe lines in")
    questions = [] if talking else [storable(question)] if question is not None else piped_questions()
    if not talking and not any(text.strip() for text in questions):
        raise UsageError("there is no question", todo='give one: distill chat MODEL "What is 2 + 2?", or pipe lines in')
    kind = check_kind(options.kind)
    who = partner(where, model=options.model, context=options.context)
    asked = Asked(Sampling(temperature=options.temperature, top_p=options.top_p), options.max_tokens, options.seed)
    own = who.contract.system if who.contract else None
    system = storable(options.system) if options.system is not None else own
    conversation = Conversation(who.talker, asked, system=system, instruction=who.instruction(), kind=kind)
    try:
        if talking:
            converse(conversation)
            return None
        return {"model": where, "replies": answer(conversation, questions, quiet=options.as_json)}
    finally:
        who.talker.close()


class Conversation:
    """Turns with one model. Later turns see the earlier answers without their reasoning, as R1's card advises."""

    def __init__(
        self, talker: Talker, asked: Asked, *, system: str | None, instruction: dict[str, str] | None, kind: str
    ) -> None:
        self._talker, self._asked = talker, asked
        self._system, self._instruction, self._kind = system, instruction, kind
        self._turns: list[Message] = []

    def forget(self) -> None:
        self._turns = []

    def ask(self, question: str, write: Write) -> Said:
        """Sends a question and writes the reply as it comes. Ctrl-C ends the reply, not the conversation.

        A question without an answer is forgotten. Raises ContextFullError, and EndpointError for what broke.
        """
        *system, turn = prompt_messages(question, self._kind, self._instruction, self._system)
        parts: dict[str, str] = {"reasoning": "", "answer": ""}
        ending = None
        try:
            with contextlib.closing(self._talker.reply([*system, *self._turns, turn], self._asked)) as reply:
                for part in reply:
                    if isinstance(part, Ending):
                        ending = part
                    else:
                        parts[part.part] += part.text
                        write(part)
        except KeyboardInterrupt:
            ending = None
        said = Said(**parts, reason=ending.reason if ending else "stopped", tokens=ending.tokens if ending else None)
        if said.kept:
            self._turns += [turn, {"role": "assistant", "content": said.kept}]
        return said


class Printer:
    """Writes a reply to stdout: on a terminal the reasoning dimmed, elsewhere between its tags as it was written."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._terminal = self._console.is_terminal
        self._last: str | None = None

    def __call__(self, piece: Piece) -> None:
        if self._terminal:
            text = _UNPRINTABLE.sub("", piece.text)
            gap = "\n\n" if self._last not in (None, piece.part) else ""
            self._console.print(gap + text, end="", style="dim" if piece.part == "reasoning" else None)
        else:
            sys.stdout.write(self._tag(piece.part) + piece.text)
        sys.stdout.flush()
        self._last = piece.part

    def end(self) -> None:
        """Closes the reply's last line."""
        unclosed = f"\n{CLOSE}" if self._last == "reasoning" and not self._terminal else ""
        sys.stdout.write(unclosed + "\n")
        sys.stdout.flush()
        self._last = None

    def _tag(self, part: str) -> str:
        if part == self._last:
            return ""
        if part == "reasoning":
            return f"{OPEN}\n"
        return f"\n{CLOSE}\n\n" if self._last == "reasoning" else ""


def converse(conversation: Conversation) -> None:
    """The interactive loop. Ends at /exit, Ctrl-D, or Ctrl-C at the prompt."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # arrow keys and history at the prompt

    say(HELP)
    printer = Printer()
    while (line := _read()) is not None:
        if line == "/new":
            conversation.forget()
            say("the conversation is forgotten")
        elif line.startswith("/"):
            say(f"there is no {line.split()[0]}; {HELP}")
        elif line:
            _turn(conversation, line, printer)


def _turn(conversation: Conversation, line: str, printer: Printer) -> None:
    """One question; what goes wrong with it ends neither the conversation nor the command."""
    try:
        said = conversation.ask(line, printer)
    except ContextFullError as error:
        printer.end()
        say(f"{error.what}; /new forgets the conversation")
    except DistillError as error:
        printer.end()
        say(str(error))
    else:
        printer.end()
        for remark in remarks(said):
            say(remark)


def _read() -> str | None:
    """A line of the user, without white space around it; None to leave."""
    try:
        line = storable(input(PROMPT)).strip()
    except (EOFError, KeyboardInterrupt):
        sys.stdout.write("\n")
        return None
    return None if line == "/exit" else line


def answer(conversation: Conversation, questions: Sequence[str], *, quiet: bool) -> list[dict[str, Any]]:
    """Answers questions one by one, each for itself; `quiet` prints nothing on stdout. Returns what was said.

    Raises Interrupted at Ctrl-C, UsageError for a question that fills the context alone.
    """
    printer = None if quiet else Printer()
    replies = []
    for question in questions:
        conversation.forget()
        try:
            said = conversation.ask(question, printer or (lambda piece: None))
        except ContextFullError as error:
            raise UsageError(error.what, given=f"{question[:60]!r}", todo="ask something shorter") from error
        finally:
            if printer is not None:
                printer.end()
        for remark in remarks(said):
            say(remark)
        if said.reason == "stopped":
            raise Interrupted("stopped; the answer is not complete")
        values = {"reasoning": said.reasoning or None, "answer": said.answer}
        replies.append({"question": question, **values, "finish_reason": said.reason, "tokens": said.tokens})
    return replies


def remarks(said: Said) -> Iterator[str]:
    """What the reader has to know about how a reply ended, if anything."""
    if said.reason == "length":
        yield f"(cut after {said.tokens} tokens: --max-tokens)" if said.tokens else "(cut by --max-tokens)"
    elif said.reason == "context":
        yield "(cut: the context is full; /new forgets the conversation)"
    elif said.reason == "stopped":
        yield "(stopped)"
    if said.reason != "stopped" and not said.answer:
        yield "(no answer followed)"


def piped_questions() -> list[str]:
    """The lines of stdin that are not empty."""
    return [storable(line).strip() for line in sys.stdin if line.strip()]


def _take_any_bytes() -> None:
    """Has bytes of stdin that are no text come as lone surrogates, in every locale, which `storable` then replaces."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
