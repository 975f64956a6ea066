"""Tokens per second of the `local` engine, as a ratio to transformers' own `generate` on the same prompts in one run.

    python benchmarks/sampling_speed.py --model teachers/tiny-r1

Both sample the model at temperature 0.6, top-p 0.95 with the same batch; `generate` gets its prompts sorted by length,
so that padding costs it as little as it can. Only tokens of replies count, those after a reply's end do not.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

from distill.contract import prompt_messages
from distill.engines import Request
from distill.engines.local import LocalEngine
from distill.prompts.sources import prompts_of
from distill.records import Message, Sampling
from distill.source_specs import PromptsPart

SAMPLING = Sampling(temperature=0.6, top_p=0.95, seed=1)


def ours(engine: LocalEngine, asked: list[list[Message]], max_tokens: int) -> tuple[int, float]:
    """(reply tokens, seconds) of the engine, all requests in flight at once."""

    async def answer() -> tuple[int, float]:
        await engine.start()
        started = time.monotonic()
        requests = [Request(str(n), messages, SAMPLING, max_tokens, n) for n, messages in enumerate(asked)]
        replies = await asyncio.gather(*(engine.complete(request) for request in requests))
        seconds = time.monotonic() - started
        await engine.close()
        return sum(reply.completion_tokens or 0 for reply in replies), seconds

    return asyncio.run(answer())


def theirs(model: Any, tokenizer: Any, asked: list[list[Message]], max_tokens: int, batch: int) -> tuple[int, float]:
    """(reply tokens, seconds) of `model.generate`, batch after batch."""
    import torch

    texts = [tokenizer.apply_chat_template(m, add_generation_prompt=True, tokenize=False) for m in asked]
    texts.sort(key=len)
    torch.manual_seed(1)
    tokens, started = 0, time.monotonic()
    for place in range(0, len(texts), batch):
        inputs = tokenizer(texts[place : place + batch], return_tensors="pt", padding=True, add_special_tokens=False)
        settings = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 0, "max_new_tokens": max_tokens}
        output = model.generate(**inputs, **settings, pad_token_id=tokenizer.pad_token_id)
        replies = output[:, inputs["input_ids"].shape[1] :]
        tokens += int((replies != tokenizer.pad_token_id).sum())
    return tokens, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("teachers/tiny-r1"))
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    part = PromptsPart(source="arithmetic", split="test", limit=options.prompts)
    asked = [prompt_messages(prompt.text, prompt.kind, {}, None) for prompt in prompts_of(part, 1)]
    tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype="auto", experts_implementation="grouped_mm")
    rates: dict[str, list[float]] = {"local engine": [], "generate": []}
    for _ in range(options.runs):  # in turn, so that a slow minute of the machine meets both
        engine = LocalEngine(str(options.model), batch=options.batch)
        for name, (tokens, seconds) in (
            ("local engine", ours(engine, asked, options.max_tokens)),
            ("generate", theirs(model, tokenizer, asked, options.max_tokens, options.batch)),
        ):
            rates[name].append(tokens / seconds)
            print(f"{name:<13} {tokens} tokens in {seconds:.1f} s: {tokens / seconds:.0f} tokens/s", flush=True)
    median = {name: statistics.median(found) for name, found in rates.items()}
    print(f"medians: {median['local engine']:.0f} and {median['generate']:.0f} tokens/s, ", end="")
    print(f"ratio {median['local engine'] / median['generate']:.2f}")


if __name__ == "__main__":
    main()
