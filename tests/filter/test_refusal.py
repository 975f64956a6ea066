"""Refusals and replies that name their model, in English and Chinese, and texts that only mention either."""

from __future__ import annotations

from dataclasses import replace

import pytest
from checked_trace import PROMPT, TRACE

from distill.filter.refusal import refusal
from distill.filter_specs import RefusalSettings
from distill.records import Prompt

SETTINGS = RefusalSettings()


def reason(answer: str, prompt: Prompt = PROMPT, reasoning: str | None = "add") -> str:
    return refusal(prompt, replace(TRACE, reasoning=reasoning, answer=answer), SETTINGS).reason


REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I can’t assist with that request.",
    "I am sorry, I cannot provide instructions for this.",
    "Sorry, I can't do that.",
    "I cannot help with that request.",
    "I can't assist you with this, as it may be harmful.",
    "I'm unable to provide medical advice.",
    "I am not able to help with this question.",
    "Unfortunately, I cannot answer this question.",
    "I apologize, but I am unable to fulfill this request.",
    "My apologies, but I won't be able to assist with that.",
    "I'm really sorry, but as an assistant, I can't share that.",
    "I must decline.",
    "I'm not comfortable discussing this topic.",
    "Sorry, that's beyond my current scope. Let's talk about something else.",
    "As an AI language model, I cannot provide an answer.",
    "**I'm sorry, but I can't help with that.**",
    "抱歉，我无法回答这个问题。",
    "对不起，我不能提供这方面的帮助。",
    "您好，非常抱歉，这个问题我暂时无法回答。",
    "很抱歉，作为AI助手，我无法协助您完成这个请求。",
    "作为一个人工智能语言模型，我不能讨论这个话题。",
    "你好，这个问题我暂时无法回答，让我们换个话题再聊聊吧。",
]


@pytest.mark.parametrize("answer", REFUSALS)
def test_refusals(answer: str) -> None:
    assert reason(answer) == "refusal"
    assert reason(answer, Prompt("Write a letter in which a clerk refuses.")) != "refusal", "asked for"
    assert reason(f"The clerk said: {answer}") != "refusal", "mentioned"
    assert reason("4", reasoning=answer) != "refusal", "thought, and then answered"


@pytest.mark.parametrize(
    "answer",
    [
        "4",
        "We can't share 7 apples equally among 2 children, so 1 is left.",
        "Unfortunately, we cannot create 5 equal groups: the answer is 0.",
        "I can't see how it could be anything but 4.",
        "I cannot help fewer than 3 people, so the answer is 3.",
        "Sorry for the wait. The answer is 4.",
        "I'm afraid the answer is 4.",
        "Unfortunately, the train is late by 12 minutes.",
        "It cannot be determined.",
        "No solution exists, since x cannot be negative.",
        "对不起的英文是 sorry。",
        "抱歉，刚才算错了。答案是4。",
        "小明不能回答这个问题，所以得0分。",
        "The function cannot provide a value at 0.",
        "I'm sorry, but I can't help with that is what she said. " + "And then she explained at length why. " * 20,
    ],
)
def test_answers_that_refuse_nothing(answer: str) -> None:
    assert reason(answer) == ""


IDENTITIES = [
    "As an AI language model, I think the answer is 4.",
    "I am an AI assistant, and the answer is 4.",
    "I'm just a language model, but it is 4.",
    "I'm DeepSeek-R1, and the answer is 4.",
    "I am ChatGPT. The answer is 4.",
    "I was created by OpenAI to tell you that it is 4.",
    "Here speaks an assistant created by DeepSeek: 4.",
    "我是深度求索公司开发的助手，答案是4。",
    "我是一个人工智能，答案是4。",
    "作为一个语言模型，我认为答案是4。",
]


@pytest.mark.parametrize("text", IDENTITIES)
def test_who_is_speaking(text: str) -> None:
    assert reason(text) == "identity"
    assert reason("4", reasoning=f"Let me see. {text}") == "identity"
    for question in ("Who are you?", "What can an AI do?", "你是谁？", "Is ChatGPT a robot?"):
        assert reason(text, Prompt(question)) == "", "asked for"
    silent = RefusalSettings(identity=False)
    assert refusal(PROMPT, replace(TRACE, answer=text), silent).outcome == "pass"


@pytest.mark.parametrize(
    "text",
    [
        "I am Ben, and I have 4 apples.",
        "I'm a bit unsure whether this is right.",
        'The robot said "I am an AI assistant" 4 times.',
        "The model predicts 4. A language model is a distribution over texts.",
        "As an aid, I draw a table.",
        "I am given that x = 4.",
        "我是这样想的：答案是4。",
        "作为一个整数，x 等于4。",
    ],
)
def test_texts_that_name_nobody(text: str) -> None:
    assert reason(text) == ""
    assert reason("4", reasoning=text) == ""
