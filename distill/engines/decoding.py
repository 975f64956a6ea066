"""Batched sampling from a causal language model: prefill, draw, drop finished rows. Knows nothing about text.

Every row draws from its own stream of uniform numbers by inverting the cumulative distribution, so a row's tokens do
not depend on who shares its batch, but for rounding: in bfloat16 a batch of another size moves logits by a little, and
where two tokens are as good as even the other one may be drawn (1 of 4,000 traces in a run that was killed 20 times).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.records import Sampling

if TYPE_CHECKING:
    import torch

COMPACT_SHARE = 0.15
"""Finished rows are taken out of the batch once they make up this share of it."""
CANDIDATES = 512
"""How many of the likeliest tokens top-p, top-k and min-p look at first; a flatter distribution takes them all."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence to generate: prompt ids, at most `max_tokens` new ones, drawn by `sampling` and `seed`."""

    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling
    seed: int | None


def generate(
    model: Any, rows: Sequence[Row], stops: Collection[int], pad: int, *, cancelled: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, list[int]]]:
    """Yields (index into `rows`, new token ids) as rows finish; the ids end with a stop id unless the row was cut.

    `cancelled` is asked before every step; once true, unfinished rows are never yielded.
    """
    import torch

    device = model.device
    width = max(len(row.prompt) for row in rows)
    tokens = torch.tensor([[pad] * (width - len(row.prompt)) + list(row.prompt) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows], device=device)
    batch = _Batch(model, rows, tokens, mask)
    while batch.active and not cancelled():
        chosen = batch.step()
        over = []
        for place, token in enumerate(chosen):
            index = batch.active[place]
            batch.new[index].append(token)
            ended = token in stops or len(batch.new[index]) >= rows[index].max_tokens
            if ended and not batch.finished[place]:
                yield index, list(batch.new[index])
            over.append(ended or batch.finished[place])
        batch.drop(over)


def stream(model: Any, row: Row, stops: Collection[int]) -> Iterator[int]:
    """The new token ids of one row as they are drawn, the very ones `generate` gives; a stop id is the last one."""
    import torch

    tokens = torch.tensor([list(row.prompt)], device=model.device)
    batch = _Batch(model, [row], tokens, torch.ones_like(tokens))
    for _ in range(row.max_tokens):
        (token,) = batch.step()
        yield token
        if token in stops:
            return


class _Batch:
    """The tensors of the rows still in the batch: row i of each belongs to `rows[active[i]]`."""

    def __init__(self, model: Any, rows: Sequence[Row], tokens: torch.Tensor, mask: torch.Tensor) -> None:
        import torch

        from distill.engines.cache import cache_for

        self.model, self.tokens, self.mask = model, tokens, mask
        self.positions = (mask.cumsum(-1) - 1).clamp(min=0)
        self.cache = cache_for(model)
        self.active = list(range(len(rows)))
        self.finished = [False] * len(rows)
        self.new: list[list[int]] = [[] for _ in rows]
        self.draw = Draw.of(rows, mask.device)
        self.uniforms = torch.nn.utils.rnn.pad_sequence([uniforms_of(row) for row in rows], batch_first=True).to(
            mask.device
        )
        self.count = 0

    def step(self) -> list[int]:
        """One forward pass and one new token per row."""
        import torch

        from distill.engines.cache import expanding_once

        with torch.inference_mode(), expanding_once(self.model):
            logits = self.model(
                input_ids=self.tokens,
                attention_mask=self.mask,
                position_ids=self.positions,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            chosen = self.draw.tokens(logits.float(), self.uniforms[:, self.count])
            self.count += 1
            self.tokens, self.positions = chosen[:, None], self.positions[:, -1:] + 1
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(chosen), 1)], dim=1)
            return list(map(int, chosen.tolist()))

    def drop(self, over: list[bool]) -> None:
        """Marks rows as finished and takes them out once they are worth the copying."""
        import torch

        self.finished = over
        if not all(over) and sum(over) < max(1.0, COMPACT_SHARE * len(over)):
            return
        keep = [place for place, ended in enumerate(over) if not ended]
        self.active = [self.active[place] for place in keep]
        self.finished = [False] * len(keep)
        if keep:
            rest = torch.tensor(keep, device=self.mask.device)
            self.tokens, self.positions, self.mask = self.tokens[rest], self.positions[rest], self.mask[rest]
            self.draw, self.uniforms = self.draw.select(rest), self.uniforms[rest]
            self.cache.batch_select_indices(rest)


def uniforms_of(row: Row) -> torch.Tensor:
    """[max_tokens] float64 in [0, 1) from the row's own seed; without one, from torch's global state."""
    import torch

    if row.seed is None:
        return torch.rand(row.max_tokens, dtype=torch.float64)
    return torch.rand(row.max_tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(row.seed))


@dataclass(frozen=True, slots=True)
class Draw:
    """Sampling settings of a batch as [rows] tensors. Neutral: temperature 1, top_p 1, top_k vocabulary, min_p 0.

    In vLLM's order (vllm/v1/sample/sampler.py): min-p and top-k first, then top-p of the mass that those leave.
    """

    temperature: torch.Tensor
    top_p: torch.Tensor
    top_k: torch.Tensor
    min_p: torch.Tensor

    @staticmethod
    def of(rows: Sequence[Row], device: torch.device) -> Draw:
        import torch

        def column(values: list[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device)

        asked = [row.sampling for row in rows]
        return Draw(
            column([1.0 if s.temperature is None else s.temperature for s in asked]),
            column([1.0 if s.top_p is None else s.top_p for s in asked]),
            column([float(s.top_k or 2**31) for s in asked]),
            column([s.min_p or 0.0 for s in asked]),
        )

    def select(self, places: torch.Tensor) -> Draw:
        return Draw(self.temperature[places], self.top_p[places], self.top_k[places], self.min_p[places])

    def tokens(self, logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        """[rows] token ids from [rows, vocabulary] logits and one uniform number per row; temperature 0 is greedy."""
        import torch

        greedy = logits.argmax(-1)
        if bool((self.temperature == 0).all()):
            return greedy
        scaled = logits / self.temperature.clamp(min=1e-6)[:, None].float()
        probabilities = torch.softmax(scaled, dim=-1)
        sampled = self._nucleus(probabilities, uniforms)
        return torch.where(self.temperature == 0, greedy, sampled)

    def _nucleus(self, probabilities: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        import torch

        width = min(CANDIDATES, probabilities.shape[-1])
        top, ids = probabilities.topk(width, dim=-1)
        if width < probabilities.shape[-1] and not self._within(top, probabilities):
            top, ids = probabilities.sort(dim=-1, descending=True)
        top = top.double()
        rank = torch.arange(top.shape[-1], device=top.device)
        allowed = (rank < self.top_k[:, None]) & (top >= self.min_p[:, None] * top[:, :1])
        left = torch.where(self._unlimited(probabilities), 1.0, (top * allowed).sum(-1))
        allowed &= top.cumsum(-1) - top < (self.top_p * left)[:, None]
        allowed[:, 0] = True
        mass = (top * allowed).cumsum(-1)
        target = (uniforms * mass[:, -1]).unsqueeze(-1)
        place = torch.searchsorted(mass, target, right=True).clamp(max=top.shape[-1] - 1)
        return ids.gather(-1, place).squeeze(-1)

    def _unlimited(self, probabilities: torch.Tensor) -> torch.Tensor:
        """[rows] whether neither top-k nor min-p takes anything away, so that top-p is of the whole mass."""
        return (self.top_k >= probabilities.shape[-1]) & (self.min_p == 0)

    def _within(self, top: torch.Tensor, probabilities: torch.Tensor) -> bool:
        """Whether the settings of every row leave nothing beyond these likeliest candidates."""
        enough = self._unlimited(probabilities) & (top.double().sum(-1) >= self.top_p)
        by_rank = self.top_k <= top.shape[-1]
        by_share = top[:, -1].double() < self.min_p * top[:, 0].double()
        return bool((enough | by_rank | by_share).all())
