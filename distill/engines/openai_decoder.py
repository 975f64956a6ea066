"""The text of a cut reply from its token ids, as the server that wrote it would have given it.

Knows nothing about how ids are drawn. vLLM's POST /detokenize is what it asks.
"""

from __future__ import annotations

from distill.engines.openai_replies import detokenized, parsed
from distill.engines.openai_server import DETOKENIZE, Patience, Server
from distill.engines.streaming import REPLACEMENT
from distill.errors import EndpointError

NO_SUCH_PLACE = (404, 405, 501)
DECODE_SECONDS = 30.0
TAIL = 2
"""Tokens of the prompt behind which a reply is decoded, since many tokenizers write a word differently at the start of
a text; they come from the chat template, so that few are different."""
SEEN_TAILS = 1_000
LONGEST_SPLIT = 64
"""Tokens at a cut that are looked at one by one for the end of a character; four are enough for all that is text."""


class Decoder:
    """Turns token ids of a server's model into text."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._before: dict[tuple[int, ...], str] = {}
        """End of a prompt → its text."""

    async def text(self, prompt: tuple[int, ...], output: tuple[int, ...]) -> tuple[str, bool]:
        """The text of a reply's tokens as far as they are whole characters, and whether some are not.

        A token whose bytes end within a character is left out whole, as vLLM leaves it out of a reply that is cut.
        """
        tail, kept = prompt[-TAIL:], len(output)
        before = self._before.get(tail)
        if before is None:
            if len(self._before) >= SEEN_TAILS:
                self._before.clear()
            before = self._before[tail] = await self.decoded(tail)
        text = await self.decoded(tail + output)
        while text.endswith(REPLACEMENT) and len(output) - kept < LONGEST_SPLIT and kept:
            kept -= 1
            text = await self.decoded(tail + output[:kept])
        return text.rstrip(REPLACEMENT).removeprefix(before), kept < len(output)

    async def decoded(self, ids: tuple[int, ...]) -> str:
        body = {"model": self._server.model, "tokens": list(ids)}
        answer = await self._server.ask("POST", DETOKENIZE, Patience(DECODE_SECONDS), body)
        if answer.status in NO_SUCH_PLACE:
            raise cannot_continue(self._server.shown, f"POST /detokenize gives {answer.status}")
        if answer.status != 200:
            raise self._server.failure(answer.status, answer)
        text = detokenized(parsed(answer.content))
        if text is None:
            raise cannot_continue(self._server.shown, "its /detokenize gives no text")
        return text


def cannot_continue(where: str, why: str) -> EndpointError:
    """The error for a server that was taken for one that goes on with cut replies by their token ids."""
    return EndpointError(
        f"the server cannot go on with a cut reply: {why}",
        given=where,
        todo="set continuation: none in the teacher's spec (teacher_overrides.continuation=none), which excludes "
        "generate.slice_tokens and generate.continue_truncated, or use vLLM",
    )
