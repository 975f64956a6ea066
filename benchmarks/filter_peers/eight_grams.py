"""Decontamination as open-r1 does it: a trace goes when one 8-gram of its words stands in any evaluation problem.

Words are what stands between white space, in lower case; an n-gram is a text, looked up in a hash table.
"""

from __future__ import annotations

from work import in_two_processes, tell, work

N = 8
_known: dict[str, set[int]] = {}


def grams(text: str) -> set[str]:
    words = text.lower().split()
    return {" ".join(words[place : place + N]) for place in range(len(words) - N + 1)}


def prepare(problems: list[str]) -> None:
    for number, problem in enumerate(problems):
        for gram in grams(problem):
            _known.setdefault(gram, set()).add(number)


def contaminated(text: str) -> bool:
    return any(gram in _known for gram in grams(text))


if __name__ == "__main__":
    wanted = work()

    def run() -> list[str]:
        rows = [(row["id"], row["text"]) for row in wanted.traces()]
        hits = in_two_processes(contaminated, [text for _, text in rows], prepare, wanted.problems())
        return [key for (key, _), hit in zip(rows, hits, strict=True) if hit]

    tell(run)
