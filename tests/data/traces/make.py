"""Writes the fixtures beside it: LAYOUT.jsonl, rows as published sets have them, and expected.json, what they hold.

All wording is our own; the columns are those of the sets' cards. Expectations come from the pieces that a row is built
of, not from any parser. Run it after a change: `python tests/data/traces/make.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
R1, QWQ = "deepseek-ai/DeepSeek-R1", "Qwen/QwQ-32B"
SKY = (
    "You think at length before you answer. Put the thinking between <|begin_of_thought|> {steps} <|end_of_thought|> "
    "and what you conclude between <|begin_of_solution|> {solution} <|end_of_solution|>. No <think> or </think>."
)
BOXED = r"Return your final response within \boxed{}. "
STDIN = (
    "Generate an executable Python function generated from the given prompt. The function should take stdin as input "
    "and print the output. Simply call the function after the definition."
)
BODY = (
    "Generate an executable Python function generated from the given prompt. Return the function body without invoking "
    "it at the final solution."
)
THINGS = ("loaves", "kites", "litres of paint", "tickets", "metres of rope", "eggs", "bricks")


class Piece:
    """A question, how it is thought over, and the reply, by number."""

    def __init__(self, n: int, *, wrong: bool = False) -> None:
        a, b, thing = 7 * n + 3, n % 9 + 2, THINGS[n % len(THINGS)]
        self.gold = str(a * b)
        said = str(a * b + 1) if wrong else self.gold
        self.question = f"One crate holds {a} {thing}. How many {thing} are in {b} such crates?"
        self.thought = f"Each of the {b} crates holds {a}.\n\nSo I need {a} × {b}, that is {said}.\nLet me check: yes."
        self.answer = f"There are {a} times {b} {thing}:\n\n\\boxed{{{said}}}"
        if n % 10 == 4:
            self.thought = f"Schauen wir: 箱子 {b} 个，每箱 {a}. Ответ — {said} ✓ 🧺 e\u0301\n\n" + self.thought
        if n % 30 == 7:
            self.thought += "\n\nOnce more, slowly:" + f"\n- add {a} to what there is" * 220
        if n % 10 == 8:
            self.answer = f'```python\nprint({a} * {b})  # no <b>tags</b> & "quotes"\n```\n\n{self.answer}'


class Sheet:
    """The rows of one layout, and what they hold."""

    def __init__(self, **common: Any) -> None:
        self.rows: list[dict[str, Any]] = []
        self.traces: list[dict[str, Any]] = []
        self.unreadable: list[list[Any]] = []
        self.common = {"kind": "open", "gold": None, "finish": "stop", "fault": None, "teacher": None, **common}

    def add(self, row: dict[str, Any]) -> Sheet:
        self.rows.append(row)
        return self

    def holds(self, question: str, reasoning: str | None, answer: str | None, item: int = 0, **more: Any) -> Sheet:
        """One trace of the last row."""
        told = {"row": len(self.rows), "item": item, "question": question, "reasoning": reasoning, "answer": answer}
        self.traces.append({**told, **self.common, **more})
        return self

    def refused(self, reason: str, item: int = 0) -> Sheet:
        self.unreadable.append([len(self.rows), item, reason])
        return self


def think(p: Piece) -> str:
    return f"<think>\n{p.thought}\n</think>\n\n{p.answer}"


def sky(p: Piece) -> str:
    thought, answer = p.thought, p.answer
    return (
        f"<|begin_of_thought|>\n\n{thought}\n\n<|end_of_thought|>\n\n"
        f"<|begin_of_solution|>\n\n{answer}\n\n<|end_of_solution|>"
    )


def chat(question: Any, reply: Any, *, system: str | None = None, keys: str = "role content user assistant") -> Any:
    who, what, user, assistant = keys.split()
    turns = [{who: user, what: question}, {who: assistant, what: reply}]
    return [{who: "system", what: system}, *turns] if system else turns


FROM = "from value user assistant"
GPT = "from value human gpt"


def openr1() -> Sheet:
    sheet = Sheet(kind="math", teacher=R1)

    def row(p: Piece, generations: Any, **changed: Any) -> None:
        count = len(generations) if isinstance(generations, list) else 0
        base = {
            "problem": p.question,
            "solution": f"Multiply. The result is {p.gold}.",
            "answer": p.gold,
            "problem_type": "Algebra",
            "question_type": "math-word-problem",
            "source": "olympiads",
            "uuid": f"00000000-0000-0000-0000-{len(sheet.rows):012d}",
            "is_reasoning_complete": [True] * count,
            "generations": generations,
            "correctness_math_verify": [True] * count,
            "correctness_llama": None,
            "finish_reasons": None,
            "correctness_count": count,
            "messages": chat(p.question, generations[0]) if count else None,
        }
        sheet.add({**base, **changed})

    def held(p: Piece, item: int = 0, **more: Any) -> None:
        sheet.holds(p.question, p.thought, p.answer, item, **{"gold": p.gold, **more})

    for n in range(1, 5):  # two generations, the second of every other row wrong
        right, second = Piece(n), Piece(n, wrong=n % 2 == 0)
        again = f"Again from the start.\n{second.thought}"
        row(right, [think(right), f"<think>{again}</think>{second.answer}"], correctness_llama=[True, n % 2 == 1])
        held(right)
        sheet.holds(right.question, again, second.answer, 1, gold=right.gold)
    p = Piece(5)  # four generations, flags for two of them
    row(p, [think(p), *(f"<think>\nWay {k}.\n</think>\n\n\\boxed{{{p.gold}}}" for k in (2, 3, 4))])
    sheet.rows[-1].update(is_reasoning_complete=[True, True], correctness_math_verify=[True], finish_reasons=["stop"])
    held(p)
    for k in (2, 3, 4):
        sheet.holds(p.question, f"Way {k}.", f"\\boxed{{{p.gold}}}", k - 1, gold=p.gold)
    p = Piece(6)  # the second was cut in its reasoning, the third, as the flag says, later
    cut = f"<think>\n{p.thought} And then"
    row(p, [think(p), cut, "<think>Quick.</think>It is"], is_reasoning_complete=[True, False, False])
    held(p)
    sheet.holds(p.question, f"{p.thought} And then", None, 1, gold=p.gold, finish="length", fault="missing_close")
    sheet.holds(p.question, "Quick.", "It is", 2, gold=p.gold, finish="length")
    p = Piece(7)  # the second stopped at the limit, in its answer
    row(p, [think(p), "<think>Short.</think>The result is"], finish_reasons=["stop", "length"])
    held(p)
    sheet.holds(p.question, "Short.", "The result is", 1, gold=p.gold, finish="length")
    for n, gold in ((8, None), (9, ""), (10, "notfound"), (11, "proof"), (12, "n/a")):
        p = Piece(n)
        row(p, [think(p)], answer=gold)
        held(p, gold=None, kind="open")
    p = Piece(13)
    row(p, [None, think(p)])
    sheet.refused("no_reply", 0)
    held(p, 1)
    p = Piece(14)  # a derived set keeps the chosen generation alone
    row(p, [], messages=chat(p.question, think(p)))
    held(p)
    row(Piece(15), None)
    sheet.refused("no_reply")
    row(Piece(16), [think(Piece(16))], problem="  ")
    sheet.refused("no_question")
    p = Piece(17)  # only the closing tag
    row(p, [f"{p.thought}\n</think>\n\n{p.answer}"])
    held(p)
    p = Piece(18)  # no tags at all
    row(p, [p.answer])
    sheet.holds(p.question, None, p.answer, gold=p.gold)
    p = Piece(19)
    row(p, [f"<think>\n{p.thought}\n<think>\nagain\n</think>\n\n{p.answer}"])
    sheet.holds(p.question, f"{p.thought}\n<think>\nagain", p.answer, gold=p.gold, fault="doubled_tag")
    p = Piece(20)
    row(p, [think(p) + "\ud83d"])
    sheet.refused("not_text")
    p = Piece(21)  # lists as JSON text
    row(p, [think(p)])
    sheet.rows[-1]["generations"] = json.dumps([think(p)])
    held(p)
    p = Piece(1)  # the first row again, and its question with another gold answer
    row(p, [think(p)])
    row(p, [f"<think>\nI see it otherwise.\n</think>\n\n{p.answer}"], answer="41")
    sheet.holds(p.question, "I see it otherwise.", p.answer, gold=p.gold)
    return sheet


def sky_rows(code: bool) -> Sheet:
    sheet = Sheet(teacher=R1)
    for n in range(30, 46):
        p = Piece(n)
        words = (BOXED, "", STDIN, BODY)[n % 4] if code else (BOXED, "")[n % 2]
        sheet.add({"system": SKY, "conversations": chat(words + p.question, sky(p), keys=FROM)})
        sheet.holds(p.question, p.thought, p.answer)
    p = Piece(46)
    whole = sky(p)
    sheet.add({"system": SKY, "conversations": chat(p.question, whole.partition("<|end_of_thought|>")[0], keys=FROM)})
    sheet.holds(p.question, p.thought, None, finish="length", fault="missing_close")
    p = Piece(47)
    opened = whole_without(sky(p), "\n\n<|end_of_solution|>")
    sheet.add({"system": None, "conversations": chat(p.question, opened, keys=FROM)})
    sheet.holds(p.question, p.thought, f"<answer>\n\n{p.answer}", finish="length", fault="missing_answer_tag")
    p = Piece(48)
    sheet.add({"system": SKY, "conversations": chat(p.question, think(p), keys=FROM)})
    sheet.holds(p.question, p.thought, p.answer)
    p = Piece(49)
    sheet.add({"system": SKY, "conversations": chat(p.question, sky(p), keys=GPT)})
    sheet.holds(p.question, p.thought, p.answer)
    p = Piece(50)
    sheet.add({"system": SKY, "conversations": chat(p.question, p.answer, keys=FROM)})
    sheet.holds(p.question, None, p.answer)
    p = Piece(51)
    sheet.add({"system": SKY, "conversations": chat(p.question, sky(p), keys=FROM) + chat("More?", "No.", keys=FROM)})
    sheet.refused("multi_turn")
    sheet.add({"system": SKY, "conversations": chat(None, sky(p), keys=FROM)}).refused("no_question")
    sheet.add({"system": SKY, "conversations": chat(p.question, "", keys=FROM)}).refused("no_reply")
    sheet.add({"system": SKY, "conversations": []}).refused("not_messages")
    return sheet


def whole_without(text: str, end: str) -> str:
    assert text.endswith(end)
    return text.removesuffix(end)


def openthoughts_metadata() -> Sheet:
    sheet = Sheet(teacher=R1)

    def row(p: Piece, **changed: Any) -> Sheet:
        facts = {"domain": "math", "source": "numina_math", "test_cases": None, "starter_code": None}
        texts = {"deepseek_reasoning": p.thought, "deepseek_solution": p.answer}
        gold = {"ground_truth_solution": f"We multiply and find $\\boxed{{{p.gold}}}$."}
        return sheet.add({"problem": p.question, **gold, **texts, **facts, **changed})

    for n in range(60, 72):
        p = Piece(n, wrong=n % 3 == 0)
        row(p).holds(p.question, p.thought, p.answer, kind="math", gold=p.gold)
    for n in range(72, 76):
        p = Piece(n)
        tests = json.dumps({"inputs": ["1 2"], "outputs": ["3"], **({"fn_name": "add"} if n % 2 else {})})
        starter = "def add(a, b):" if n % 2 else None
        row(p, domain="code", source="taco", test_cases=tests, starter_code=starter, ground_truth_solution=None)
        sheet.holds(p.question + (f"\n{starter}" if starter else ""), p.thought, p.answer)
    p = Piece(76)
    row(p, ground_truth_solution="It follows from what was shown.").holds(p.question, p.thought, p.answer)
    p = Piece(77)
    row(p, domain="puzzle", ground_truth_solution="None").holds(p.question, p.thought, p.answer)
    p = Piece(78)
    row(p, deepseek_reasoning=None).holds(p.question, None, p.answer, kind="math", gold=p.gold)
    p = Piece(79)
    row(p, deepseek_solution="").holds(p.question, p.thought, None, kind="math", gold=p.gold, fault="missing_answer")
    row(Piece(80), deepseek_solution=None).refused("no_reply")
    row(Piece(81), problem=None).refused("no_question")
    return sheet


def openthoughts2() -> Sheet:
    sheet = Sheet(teacher=R1)
    for n in range(90, 108):
        p = Piece(n)
        told = {"question": p.question, "source": ("openr1_math", None)[n % 2], "id": n if n % 3 else None}
        sheet.add({"conversations": chat(p.question, think(p), keys=FROM), **told}).holds(
            p.question, p.thought, p.answer
        )
    nothing = {"question": None, "source": None, "id": None}
    p = Piece(108)
    sheet.add({"conversations": chat(p.question, f"<think>\n{p.thought}", keys=FROM), **nothing})
    sheet.holds(p.question, p.thought, None, finish="length", fault="missing_close")
    p = Piece(109)
    sheet.add({"conversations": chat(p.question, f"{p.thought}</think>{p.answer}", keys=FROM), **nothing})
    sheet.holds(p.question, p.thought, p.answer)
    sheet.add({"conversations": None, **nothing}).refused("not_messages")
    sheet.add({"conversations": chat(p.question, None, keys=FROM), **nothing}).refused("no_reply")
    return sheet


def openthoughts3() -> Sheet:
    sheet = Sheet(teacher=QWQ)
    for n in range(120, 126):  # the answers to a question are rows of their own
        for answer in range(3):
            p, facts = (
                Piece(n),
                {"difficulty": (float("nan"), None, 8)[n % 3], "source": "ai2-adapt-dev/openmath-2-math"},
            )
            thought = f"Attempt {answer}.\n{p.thought}"
            reply = f"<think>\n{thought}\n</think>\n\n{p.answer}"
            sheet.add({**facts, "domain": "math", "conversations": chat(p.question, reply, keys=GPT)})
            sheet.holds(p.question, thought, p.answer)
    facts = {"difficulty": 9, "source": "stackexchange_codegolf", "domain": "code"}
    p = Piece(126)
    sheet.add({**facts, "conversations": chat(p.question, f"<think>{p.thought} So", keys="from value human assistant")})
    sheet.holds(p.question, f"{p.thought} So", None, finish="length", fault="missing_close")
    p = Piece(127)
    sheet.add({**facts, "conversations": chat(p.question, f"<think>\n{p.thought}\n</think>", keys=GPT)})
    sheet.holds(p.question, p.thought, None, fault="missing_answer")
    sheet.add({**facts, "conversations": [{"from": "gpt", "value": think(p)}]}).refused("no_question")
    sheet.add({**facts, "conversations": [{"from": "human", "value": p.question}]}).refused("no_reply")
    sheet.add({**facts, "conversations": chat(p.question, think(p), keys="from value human critic")}).refused(
        "unknown_role"
    )
    return sheet


def mixture_of_thoughts() -> Sheet:
    sheet = Sheet(teacher=R1)
    parents = ("open-r1/OpenR1-Math-220k", "open-r1/codeforces-cots", "nvidia/Llama-Nemotron-Post-Training-Dataset")
    for n in range(140, 160):
        p = Piece(n)
        sheet.add({"messages": chat(p.question, think(p)), "num_tokens": 40 + n, "source": parents[n % 3]})
        sheet.holds(p.question, p.thought, p.answer)
    p = Piece(160)
    facts = {"num_tokens": None, "source": None}
    sheet.add({"messages": chat(p.question, f"<think>\n{p.thought}"), **facts})
    sheet.holds(p.question, p.thought, None, finish="length", fault="missing_close")
    sheet.add({"messages": chat(p.question, think(p)) + chat("And?", "Nothing."), **facts}).refused("multi_turn")
    return sheet


def am() -> Sheet:
    sheet = Sheet(teacher=R1)

    def row(p: Piece, asked: dict[str, Any], said: dict[str, Any], content: str | None = None) -> Sheet:
        thought, answer = p.thought + "\n", f"\n{p.answer}\n"
        whole = f"<think>{thought}</think>\n<answer>{answer}</answer>" if content is None else content
        info = {**said, "think_content": thought, "answer_content": answer}
        user = {"role": "user", "content": p.question, "info": asked}
        return sheet.add({"messages": [user, {"role": "assistant", "content": whole, "info": info}]})

    own = {"source": "am-0309"}
    for n in range(170, 176):
        p = Piece(n, wrong=n % 3 == 0)
        row(
            p,
            {"source": ("openR1Math_extended", "NuminaMath_1.5", "MetaMathQA")[n % 3], "reference_answer": p.gold},
            own,
        )
        sheet.holds(p.question, p.thought, p.answer, kind="math", gold=p.gold)
    for n, gold in ((176, "None"), (177, "null"), (178, None), (179, "n/a")):
        p = Piece(n)
        row(p, {"source": "NuminaMath_1.5", "reference_answer": gold, "test_case": "None"}, own)
        sheet.holds(p.question, p.thought, p.answer)
    for n, test in ((180, {"test_code": "assert f(1) == 2", "test_entry_point": "f"}), (181, "assert f(1) == 2")):
        p = Piece(n)
        row(p, {"source": "KodCode", "test_case": test}, {"source": "KodCode"})
        sheet.holds(p.question, p.thought, p.answer, teacher="unknown")
    p = Piece(182)  # a reference answer that is no number stays, but is not compared
    row(p, {"source": "natural_reasoning", "reference_answer": "Because momentum is conserved."}, own)
    sheet.holds(p.question, p.thought, p.answer, gold="Because momentum is conserved.")
    for n in range(183, 187):  # other people's replies carry no answer tags
        p = Piece(n)
        row(p, {"source": "InfinityInstruct"}, {"source": ("Dolphin - R1", "GeneralThought - Feb25")[n % 2]}, think(p))
        sheet.holds(p.question, p.thought, p.answer, teacher=(R1, "unknown")[n % 2])
    p = Piece(187)
    row(p, {"source": "codeio"}, own, f"<think>{p.thought}\n</think>\n<answer>\n{p.answer}")
    sheet.holds(p.question, p.thought, f"<answer>\n{p.answer}", finish="length", fault="missing_answer_tag")
    p = Piece(188)
    row(p, {"source": "codeio"}, own, f"<think>{p.thought}")
    sheet.holds(p.question, p.thought, None, finish="length", fault="missing_close")
    p = Piece(189)  # the text stands in info alone
    row(p, {"source": "codeio"}, own)
    sheet.rows[-1]["messages"][1]["content"] = None
    sheet.holds(p.question, p.thought, p.answer)
    p = Piece(190)
    row(
        p,
        {"source": "codeio"},
        own,
        f"<think>{p.thought}</think>\n{p.answer}\nWrite it between <answer> and </answer>.",
    )
    sheet.holds(p.question, p.thought, f"{p.answer}\nWrite it between <answer> and </answer>.")
    row(Piece(191), {"source": "codeio"}, own, "  ").refused("no_reply")
    return sheet


def openmathreasoning() -> Sheet:
    sheet = Sheet(teacher=R1)

    def row(p: Piece, **changed: Any) -> Sheet:
        base = {
            "expected_answer": p.gold,
            "problem_type": "has_answer_extracted",
            "problem_source": "aops_c4_high_school_math",
            "generation_model": "DeepSeek-R1",
            "pass_rate_72b_tir": "0.65625",
            "problem": p.question,
            "generated_solution": think(p),
            "inference_mode": "cot",
            "used_in_kaggle": True,
        }
        return sheet.add({**base, **changed})

    for n in range(200, 212):
        p = Piece(n, wrong=n % 5 == 0)
        model, rate = (("DeepSeek-R1", "0.5"), ("QwQ-32B", "n/a"))[n % 2]
        row(p, generation_model=model, pass_rate_72b_tir=rate)
        sheet.holds(p.question, p.thought, p.answer, kind="math", gold=p.gold, teacher=(R1, QWQ)[n % 2])
    for n, kind in ((212, "no_answer_extracted"), (213, "converted_proof")):  # the gold answer is none
        p = Piece(n)
        row(p, problem_type=kind, used_in_kaggle=False).holds(p.question, p.thought, p.answer)
    p = Piece(214)
    row(p, expected_answer="n/a", generation_model=None).holds(p.question, p.thought, p.answer, teacher="unknown")
    code = "\n<tool_call>\nprint(6 * 7)\n</tool_call>\n```output\n42\n```\nRemaining code executions: 5\n"
    for n in (215, 216):
        p = Piece(n)
        row(p, inference_mode="tir", generated_solution=think(p).replace("\n\n", code, 1)).refused("tool_output")
    for n in (217, 218):
        row(Piece(n), inference_mode="genselect", problem="Two solutions follow. Which is the better one?")
        sheet.refused("genselect")
    for n in (219, 220):
        row(Piece(n), inference_mode="n/a", generated_solution="n/a", generation_model="n/a").refused("no_trace")
    row(Piece(221), problem=None).refused("no_question")
    return sheet


def messages() -> Sheet:
    sheet = Sheet(teacher="unknown")
    for n in range(230, 236):
        p = Piece(n)
        system = f"You are helper {n % 3}. Think between <think> and </think>." if n % 2 else None
        sheet.add({"messages": chat(p.question, think(p), system=system)}).holds(p.question, p.thought, p.answer)
    for n, key in ((236, "reasoning_content"), (237, "thinking"), (238, "reasoning")):
        p = Piece(n)
        turns = chat(p.question, p.answer)
        turns[1][key] = p.thought
        sheet.add({"messages": turns}).holds(p.question, p.thought, p.answer)
    p = Piece(239)
    turns = chat(p.question, "")
    turns[1]["reasoning_content"] = p.thought
    sheet.add({"messages": turns}).holds(p.question, p.thought, None, fault="missing_answer")
    p = Piece(240)
    sheet.add({"messages": json.dumps(chat(p.question, think(p)))}).holds(p.question, p.thought, p.answer)
    p = Piece(241)
    sheet.add({"messages": chat(p.question, sky(p))}).holds(p.question, p.thought, p.answer)
    p = Piece(242)
    facts = {"answer": p.gold, "kind": "math", "domain": "math", "model": "org/mine", "license": "mit"}
    sheet.add({"messages": chat(p.question, think(p)), **facts})
    sheet.holds(p.question, p.thought, p.answer, kind="math", gold=p.gold, teacher="org/mine")
    p = Piece(243)
    parts = [{"type": "text", "text": p.question[:20]}, {"type": "text", "text": p.question[20:]}]
    sheet.add({"messages": chat(parts, think(p))}).holds(p.question, p.thought, p.answer)
    p = Piece(244)
    sheet.add({"messages": chat(p.question, p.answer)}).holds(p.question, None, p.answer)
    p = Piece(245)
    sheet.add({"messages": chat(p.question, think(p), keys="role content human model")})
    sheet.holds(p.question, p.thought, p.answer)
    image = [{"type": "image", "url": "a.png"}]
    call = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "rain"}]},
    ]
    sheet.add({"messages": chat(image, think(p))}).refused("not_text")
    sheet.add({"messages": call}).refused("tool_output")
    sheet.add({"messages": chat(p.question, think(p)) + chat("b", "c")}).refused("multi_turn")
    sheet.add({"messages": [{"role": "assistant", "content": "Hello."}]}).refused("no_question")
    sheet.add({"messages": [{"role": "system", "content": "Be kind."}]}).refused("no_question")
    sheet.add({"messages": "not a list"}).refused("not_messages")
    sheet.add({"messages": chat(p.question, think(p), keys="role content user narrator")}).refused("unknown_role")
    return sheet


def sharegpt() -> Sheet:
    sheet = Sheet(teacher="unknown")
    for n in range(260, 276):
        p = Piece(n)
        row = {"conversations": chat(p.question, think(p), keys=GPT), "tools": None}
        sheet.add({**row, "system": "Be brief."} if n % 4 == 0 else row).holds(p.question, p.thought, p.answer)
    p = Piece(276)
    sheet.add({"conversations": chat(p.question, think(p), keys="role value prompt model")})
    sheet.holds(p.question, p.thought, p.answer)
    p = Piece(277)
    sheet.add({"conversations": chat(p.question, f"{p.thought}\n</think>\n{p.answer}", system="Ok.", keys=GPT)})
    sheet.holds(p.question, p.thought, p.answer)
    p = Piece(278)
    sheet.add({"conversations": chat(p.question, p.answer, keys=GPT)}).holds(p.question, None, p.answer)
    tool = [
        {"from": "human", "value": "Rain?"},
        {"from": "function_call", "value": "{}"},
        {"from": "gpt", "value": "No."},
    ]
    sheet.add({"conversations": tool}).refused("tool_output")
    sheet.add({"conversations": chat(p.question, think(p), keys=GPT)[:1] * 2}).refused("multi_turn")
    return sheet


SHEETS = {
    "openr1-math": openr1(),
    "openthoughts-114k": sky_rows(code=True),
    "openthoughts-114k-metadata": openthoughts_metadata(),
    "openthoughts2": openthoughts2(),
    "openthoughts3": openthoughts3(),
    "mixture-of-thoughts": mixture_of_thoughts(),
    "am-deepseek-r1-distilled": am(),
    "openmathreasoning": openmathreasoning(),
    "bespoke-stratos": sky_rows(code=False),
    "messages": messages(),
    "sharegpt": sharegpt(),
}


def line(row: dict[str, Any]) -> str:
    """JSON in UTF-8, escaped only where the row holds half a surrogate pair."""
    text = json.dumps(row, ensure_ascii=False)
    return (json.dumps(row) if any("\ud800" <= letter <= "\udfff" for letter in text) else text) + "\n"


def files() -> dict[str, str]:
    """Name → text of every fixture."""
    made = {f"{name}.jsonl": "".join(map(line, sheet.rows)) for name, sheet in SHEETS.items()}
    expected = {name: {"traces": sheet.traces, "unreadable": sheet.unreadable} for name, sheet in SHEETS.items()}
    made["expected.json"] = json.dumps(expected, ensure_ascii=False, indent=1) + "\n"
    return made


if __name__ == "__main__":
    for name, text in files().items():
        (HERE / name).write_text(text, encoding="utf-8")
