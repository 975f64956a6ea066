"""Programming tasks on a line of text."""

from __future__ import annotations

import itertools
import random
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping

from distill.problems.program_task import Family, Task, joined, on_letters, on_words

_ONE = "One whole number."
_WORDS_OR_NONE = "The words on one line, separated by single spaces; the word none if there are none."


def _count_letters(rng: random.Random) -> Task:
    letters = "aeiou" if rng.random() < 0.1 else "".join(sorted(rng.sample(string.ascii_lowercase, rng.randint(2, 5))))
    named = f"{', '.join(letters[:-1])} and {letters[-1]}"
    return on_words(
        f"count letters {letters}",
        f"Count how many letters of the text are among {named}. Capital letters count as well.",
        _ONE,
        lambda text: str(sum(text.lower().count(letter) for letter in letters)),
        f"""count = 0
for sign in text:
    if sign in "{letters}{letters.upper()}":
        count += 1
print(count)
""",
    )


def _run_lengths(rng: random.Random) -> Task:
    least, between = rng.randint(1, 4), rng.choice(("", "-", "+", "."))
    number_first = rng.random() < 0.5
    example = "3a" if number_first else "a3"
    kept = "" if least == 1 else f" Runs shorter than {least} are written as they are, without a count."
    glue = "directly one after the other" if not between else f"joined by the character {between}"

    def expected(text: str) -> str:
        runs = [(sign, len(list(group))) for sign, group in itertools.groupby(text)]
        return between.join(
            sign * count if count < least else f"{count}{sign}" if number_first else f"{sign}{count}"
            for sign, count in runs
        )

    return on_letters(
        f"run lengths from {least}, {example}, {between or 'nothing'} between",
        "Compress the string: split it into runs, each as long as possible, of one repeated character. Write a run as "
        f"its character and its length, such as {example} for aaa.{kept} Write the runs {glue}.",
        "The compressed string.",
        expected,
        f"""parts, start = [], 0
for end in range(1, len(text) + 1):
    if end == len(text) or text[end] != text[start]:
        count = end - start
        if count < {least}:
            parts.append(text[start:end])
        else:
            parts.append({"str(count) + text[start]" if number_first else "text[start] + str(count)"})
        start = end
print("{between}".join(parts))
""",
    )


def _caesar(rng: random.Random) -> Task:
    shift = rng.randint(1, 25)
    small, large = string.ascii_lowercase, string.ascii_uppercase
    table = str.maketrans(small + large, small[shift:] + small[:shift] + large[shift:] + large[:shift])
    return on_words(
        f"shift letters by {shift}",
        f"Replace every letter by the one that comes {shift} place{'s' if shift > 1 else ''} later in the alphabet, "
        "with a after z. Capital letters stay capital, spaces stay spaces.",
        "The changed text.",
        lambda text: text.translate(table),
        f"""changed = ""
for sign in text:
    if sign == " ":
        changed += sign
    else:
        base = ord("A") if sign.isupper() else ord("a")
        changed += chr((ord(sign) - base + {shift}) % 26 + base)
print(changed)
""",
    )


def _reverse_words(rng: random.Random) -> Task:
    length, longer = rng.randint(2, 8), rng.random() < 0.5
    which = f"at least {length}" if longer else f"at most {length}"
    return on_words(
        f"reverse words of {which}",
        f"Reverse the letters of each word that has {which} letters. All other words, and the order of the words, stay "
        "as they are.",
        "The changed text.",
        lambda text: joined(w[::-1] if (len(w) >= length if longer else len(w) <= length) else w for w in text.split()),
        f"""words = []
for word in text.split(" "):
    if len(word) {">=" if longer else "<="} {length}:
        turned = ""
        for letter in word:
            turned = letter + turned
        word = turned
    words.append(word)
print(" ".join(words))
""",
    )


def _palindromes(rng: random.Random) -> Task:
    least, listed = rng.randint(1, 6), rng.random() < 0.5

    def found(text: str) -> list[str]:
        return [word for word in text.split() if len(word) >= least and word.lower() == word.lower()[::-1]]

    what = "Print these words in the order of the text." if listed else "Print how many such words the text has."
    return on_words(
        f"palindromes of {least}, {'listed' if listed else 'counted'}",
        "A palindrome reads the same from both ends, capital and small letters being alike. Find the words that are "
        f"palindromes and have at least {least} letter{'s' if least > 1 else ''}; a word that occurs twice is found "
        f"twice. {what}",
        _WORDS_OR_NONE if listed else _ONE,
        lambda text: joined(found(text)) if listed else str(len(found(text))),
        f"""found = []
for word in text.split():
    small = word.lower()
    left, right = 0, len(small) - 1
    while left < right and small[left] == small[right]:
        left, right = left + 1, right - 1
    if left >= right and len(small) >= {least}:
        found.append(word)
{'print(*found or ["none"])' if listed else "print(len(found))"}
""",
    )


_PAIRS = ("()", "[]", "{}", "<>")


def _brackets(rng: random.Random) -> Task:
    pairs = sorted(rng.sample(_PAIRS, rng.randint(1, 4)))
    asked = rng.choice(("balanced", "depth", "place"))
    named = ", ".join(pairs)
    ends = {
        "balanced": ("Print yes if it is balanced and no if not.", "The word yes or no."),
        "depth": (
            "If it is balanced, print how many brackets are open at once at most; if not, print -1.",
            _ONE,
        ),
        "place": (
            "Print the position, the first being 1, of the first closing bracket that does not match; if there is "
            "none, print 0 for a balanced string and -1 if some brackets are never closed.",
            _ONE,
        ),
    }

    def cancelled(text: str) -> str:
        before = None
        while text != before:
            before = text
            for pair in pairs:
                text = text.replace(pair, "")
        return text

    def expected(text: str) -> str:
        left = cancelled(text)
        if asked == "balanced":
            return "no" if left else "yes"
        if asked == "depth":
            opening = {pair[0] for pair in pairs}
            heights = itertools.accumulate(1 if sign in opening else -1 for sign in text)
            return "-1" if left else str(max(heights))
        closing = {pair[1] for pair in pairs}
        wrong = (n for n in range(1, len(text) + 1) if set(cancelled(text[:n])) & closing)
        return str(next(wrong, -1 if left else 0))

    told = {"balanced": '"no"', "depth": "-1", "place": "place"}[asked]
    ok = {"balanced": '"yes"', "depth": "deepest", "place": "0"}[asked]
    never = {"balanced": '"no"', "depth": "-1", "place": "-1"}[asked]

    def inputs(rng: random.Random) -> list[str]:
        def nested(pieces: int) -> str:
            text = ""
            for _ in range(pieces):
                pair = rng.choice(pairs)
                text = rng.choice((pair[0] + text + pair[1], text + pair, pair + text))
            return text

        def broken(text: str) -> str:
            place = rng.randrange(len(text))
            return text[:place] + rng.choice("".join(pairs)) + text[place + 1 :]

        first, last = pairs[0], pairs[-1]
        edges = [first, first[0], last[1], last[::-1], first[0] * 3 + first[1] * 3, f"{first}{last}{first[0]}"]
        if first != last:
            edges.append(first[0] + last[0] + first[1] + last[1])
        return [*edges, *(nested(size) for size in (4, 7, 10)), *(broken(nested(size)) for size in (3, 6, 9, 12))]

    return Task(
        f"brackets {named}, {asked}",
        f"A string consists of the brackets {named}. It is balanced if every opening bracket is closed by one of its "
        f"own kind and the pairs do not cross. {ends[asked][0]}",
        "One line with 1 to 60 such brackets and nothing else.",
        ends[asked][1],
        inputs,
        expected,
        f"""text = input()
partner = {{{", ".join(f'"{pair[1]}": "{pair[0]}"' for pair in pairs)}}}
open_now, deepest, answer = [], 0, None
for place, sign in enumerate(text, start=1):
    if sign not in partner:
        open_now.append(sign)
        deepest = max(deepest, len(open_now))
    elif not open_now or open_now.pop() != partner[sign]:
        answer = {told}
        break
if answer is None:
    answer = {never} if open_now else {ok}
print(answer)
""",
    )


def _frequent(rng: random.Random) -> Task:
    rank, word = rng.randint(1, 8), rng.choice(("often", "rarely"))
    sign = -1 if word == "often" else 1

    def expected(text: str) -> str:
        counts = Counter(text.lower().replace(" ", ""))
        return joined(sorted(counts, key=lambda letter: (sign * counts[letter], letter))[rank - 1 : rank])

    return on_words(
        f"letter {rank} by how {word}",
        f"Rank the letters that occur in the text by how {word} they do, the one that occurs most {word} at place 1; "
        "letters that occur equally often are ranked by the alphabet. Capital and small letters are alike. Print the "
        f"small letter at place {rank}, or none if there are fewer different letters.",
        "One small letter, or the word none.",
        expected,
        f"""letters = [sign for sign in text.lower() if sign != " "]
ranked, left = [], sorted(set(letters))
while left:
    best = left[0]
    for letter in left:
        if letters.count(letter) {">" if sign == -1 else "<"} letters.count(best):
            best = letter
    ranked.append(best)
    left.remove(best)
print(ranked[{rank - 1}] if len(ranked) >= {rank} else "none")
""",
    )


def _every_letter(rng: random.Random) -> Task:
    every = rng.randint(2, 9)
    first = rng.randint(1, every)
    return on_words(
        f"letters {first} + {every}k",
        f"Remove all spaces. Then print the characters at the positions {first}, {first + every}, {first + 2 * every}, "
        "... (the first position is 1) as one string, or none if the text is too short for any.",
        "One string without spaces.",
        lambda text: text.replace(" ", "")[first - 1 :: every] or "none",
        f"""taken, place = "", 0
for sign in text:
    if sign != " ":
        place += 1
        if place >= {first} and (place - {first}) % {every} == 0:
            taken += sign
print(taken if taken else "none")
""",
    )


def _replace(rng: random.Random) -> Task:
    old, new, gone = rng.sample("aeiourstln", 3)
    return on_words(
        f"replace {old} by {new}, delete {gone}",
        f"Replace every {old} by {new} and remove every {gone}, in the text as it is given: the two do not affect each "
        "other. Only small letters are changed. Print the number of letters (not spaces) that are left, a space, and "
        f"the number of {new} among them.",
        "Two whole numbers, separated by a space.",
        lambda text: f"{len(re.sub(f'[ {gone}]', '', text))} {len(re.sub(f'[^{new}]', '', re.sub(old, new, text)))}",
        f"""left = found = 0
for sign in text:
    if sign == " " or sign == "{gone}":
        continue
    left += 1
    if sign == "{old}" or sign == "{new}":
        found += 1
print(left, found)
""",
    )


_STYLES: Mapping[str, tuple[str, Callable[[list[str]], str], str]] = {
    "snake": (
        "in small letters, joined by underscores",
        lambda words: "_".join(words).lower(),
        '"_".join(word.lower() for word in words)',
    ),
    "kebab": (
        "in small letters, joined by hyphens",
        lambda words: "-".join(words).lower(),
        '"-".join(word.lower() for word in words)',
    ),
    "constant": (
        "in capital letters, joined by underscores",
        lambda words: "_".join(words).upper(),
        '"_".join(word.upper() for word in words)',
    ),
    "pascal": (
        "without spaces, each word beginning with a capital letter and going on in small ones",
        lambda words: "".join(map(str.capitalize, words)),
        '"".join(word[0].upper() + word[1:].lower() for word in words)',
    ),
    "initials": (
        "as its first letter only, in capital letters, without spaces",
        lambda words: "".join(word[0].upper() for word in words),
        'text_of(words)',
    ),
}  # fmt: skip


def _naming(rng: random.Random) -> Task:
    style, backwards = rng.choice(list(_STYLES)), rng.random() < 0.5
    least = rng.randint(1, 4)
    how, write, code = _STYLES[style]
    dropped = f"Leave out all words shorter than {least} letters. " if least > 1 else ""
    turn = "Reverse the order of the words. " if backwards else ""
    code = code.replace("text_of(words)", '"".join(word.upper()[:1] for word in words)')

    def expected(text: str) -> str:
        words = [word for word in text.split() if len(word) >= least]
        return write(words[::-1] if backwards else words) or "none"

    return on_words(
        f"name {style}{' backwards' if backwards else ''} from {least}",
        f"{dropped}{turn}Then write each word {how}. Print none if no word is left.",
        "One string without spaces.",
        expected,
        f"""words = []
for word in text.split():
    if len(word) >= {least}:
        {"words.insert(0, word)" if backwards else "words.append(word)"}
print({code} if words else "none")
""",
    )


def _anagrams(rng: random.Random) -> Task:
    asked = rng.choice(("groups", "largest", "alone"))
    least = rng.randint(1, 4)
    ends = {
        "groups": "Print the number of groups.",
        "largest": "Print the size of the largest group, 0 if there is none.",
        "alone": "Print the number of groups that hold only one word.",
    }

    def expected(text: str) -> str:
        words = {word.lower() for word in text.split() if len(word) >= least}
        sizes = Counter("".join(sorted(word)) for word in words)
        found = {"groups": len(sizes), "largest": max(sizes.values(), default=0)}
        return str(found.get(asked, list(sizes.values()).count(1)))

    result = {"groups": "len(groups)", "largest": "max(map(len, groups), default=0)"}
    return on_words(
        f"anagrams {asked} from {least}",
        f"Take the different words of the text with at least {least} letter{'s' if least > 1 else ''}, in small "
        f"letters. Two words belong to one group if they are made of the same letters in another order. {ends[asked]}",
        _ONE,
        expected,
        f"""groups = []
for word in dict.fromkeys(text.lower().split()):
    if len(word) < {least}:
        continue
    for group in groups:
        other = group[0]
        if len(other) == len(word) and all(other.count(c) == word.count(c) for c in word):
            group.append(word)
            break
    else:
        groups.append([word])
print({result.get(asked, "sum(len(group) == 1 for group in groups)")})
""",
    )


def _longest_word(rng: random.Random) -> Task:
    letter, word, last = rng.choice("abcdefgilmnoprstuvy"), rng.choice(("longest", "shortest")), rng.random() < 0.5
    without = rng.random() < 0.5
    holds = f"that does not contain the letter {letter}" if without else f"that contains the letter {letter}"

    def expected(text: str) -> str:
        words = [w for w in text.split() if (letter in w.lower()) != without]
        words = words[::-1] if last else words
        return (max if word == "longest" else min)(words, key=len, default="none")

    return on_words(
        f"{word} word {'without' if without else 'with'} {letter}, {'last' if last else 'first'}",
        f"Find the {word} word {holds}, small or capital. Of several such words take the "
        f"{'last' if last else 'first'} in the text. Print none if there is none.",
        "One word.",
        expected,
        f"""best = None
for word in text.split():
    if ("{letter}" in word or "{letter.upper()}" in word) is {without}:
        continue
    if best is None or len(word) {(">=" if last else ">") if word == "longest" else ("<=" if last else "<")} len(best):
        best = word
print("none" if best is None else best)
""",
    )


def _occurrences(rng: random.Random) -> Task:
    pattern = "".join(rng.choice("abc") for _ in range(rng.randint(2, 4)))
    bordered = any(pattern[:size] == pattern[-size:] for size in range(1, len(pattern)))
    overlapping = bordered and rng.random() < 0.5  # only then it makes a difference
    how = (
        "Occurrences may overlap: aa occurs twice in aaa."
        if overlapping
        else "Occurrences must not overlap: search from the left, and go on behind each one found."
    )
    return on_letters(
        f"occurrences of {pattern}, {'overlapping' if overlapping else 'apart'}",
        f"Count how often {pattern} occurs in the string. {how}",
        _ONE,
        lambda text: str(len(re.findall(f"(?={pattern})" if overlapping else pattern, text))),
        f"""count = place = 0
while place + {len(pattern)} <= len(text):
    if text[place:place + {len(pattern)}] == "{pattern}":
        count += 1
        place += {1 if overlapping else len(pattern)}
    else:
        place += 1
print(count)
""",
        part=pattern,
    )


FAMILIES: tuple[Family, ...] = (
    _count_letters, _run_lengths, _caesar, _reverse_words, _palindromes, _brackets, _frequent, _every_letter, _replace,
    _naming, _anagrams, _longest_word, _occurrences,
)  # fmt: skip
