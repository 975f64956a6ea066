"""What is wanted, what is there, and in which order it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from distill.ledger import Entry
from distill.records import Prompt
from distill.sampling.requests import task_for
from distill.sampling.requests import wanted as all_wanted
from distill.sampling.wanted import ABSENT, Wanted
from sampling.scripted import prompts, subject


class Listed:
    """Prompts in a list, with the rows that were fetched."""

    def __init__(self, items: Sequence[Prompt]) -> None:
        self.items, self.fetched = items, list[int]()

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.items)

    def fetch(self, row: int) -> Prompt:
        self.fetched.append(row)
        return self.items[row]


def entry(finish: str = "stop", *, revision: int = 0, tokens: int = 5) -> Entry:
    return Entry(revision, finish, tokens=tokens)


def test_it_is_what_goes_through_all_prompts_breadth_first() -> None:
    asked = [*prompts(3), Prompt("often", repeats=2)]
    found = Wanted(Listed(asked), subject(), 2)
    plain = list(all_wanted(asked, subject(), 2, ()))
    assert len(found) == len(plain) == 10
    assert [key for key, _, _ in found.each()] == [task.key for task in plain]
    assert [task.request for task in found.tasks({})] == [task.request for task in plain]


def test_a_question_that_stands_there_twice_is_wanted_once() -> None:
    asked = [Prompt("a", id="1"), Prompt("b", id="2"), Prompt("a", id="3"), Prompt("c", id="4"), Prompt("b", id="5")]
    found = Wanted(Listed(asked), subject(), 3)
    assert len(found) == 9
    assert [task.prompt_id for task in found.tasks({})][:3] == ["1", "2", "4"]


def test_only_what_is_missing_is_read_and_asked() -> None:
    listed = Listed(prompts(6))
    found = Wanted(listed, subject(), 1)
    keys = [key for key, _, _ in found.each()]
    index = {keys[0]: entry(), keys[1]: entry("error", tokens=0), keys[2]: entry("length"), keys[4]: entry("loop")}
    assert [task.prompt_id for task in found.tasks(index)] == ["p1", "p3", "p5"]
    assert listed.fetched == [1, 3, 5]
    assert [task.prompt_id for task in found.tasks(index, only_failed=True)] == ["p1"]
    assert found.tally(index) == {"stop": 1, "error": 1, "length": 1, "loop": 1, ABSENT: 2}


def test_a_reply_that_was_a_failure_is_drawn_with_another_seed_a_lost_request_with_the_same() -> None:
    found = Wanted(Listed(prompts(1)), subject(), 1)
    ((key, _, _),) = found.each()
    plain = task_for(prompts(1)[0], subject(), 0).request.seed
    (lost,) = found.tasks({key: entry("error", tokens=0)})
    (first,) = found.tasks({key: entry("error", tokens=7)})
    (second,) = found.tasks({key: entry("error", revision=1, tokens=7)})
    assert lost.request.seed == plain
    assert len({plain, first.request.seed, second.request.seed}) == 3
    assert lost.key == first.key == second.key == key, "its identity is the same"


def test_those_that_go_on_are_found_by_their_entry() -> None:
    found = Wanted(Listed(prompts(3)), subject(), 1)
    keys = [key for key, _, _ in found.each()]
    index = {keys[0]: entry("length"), keys[2]: entry("stop"), "foreign": entry("length")}
    assert found.cut(index, lambda e: e.finish_reason == "length") == {keys[0]: 0}


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 6))
def test_shards_share_the_prompts_without_overlap(numbers: list[int], parts: int) -> None:
    asked = [Prompt(f"q{number}") for number in numbers]
    whole = {key for key, _, _ in Wanted(Listed(asked), subject(), 2).each()}
    shares = [
        {key for key, _, _ in Wanted(Listed(asked), subject(), 2, f"{i + 1}/{parts}").each()} for i in range(parts)
    ]
    assert set().union(*shares) == whole
    assert sum(map(len, shares)) == len(whole)
