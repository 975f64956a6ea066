"""Does an answer refuse, or a reply say who is speaking? In English and Chinese, by the words such replies are made of.

A refusal is a short answer that begins as one: a text that mentions or quotes a refusal, or was asked to write one, is
none. Knows nothing about what may be asked.
"""

from __future__ import annotations

import re

from distill.filter_specs import RefusalSettings
from distill.records import Prompt, Trace
from distill.verify import PASS, Outcome, failing

_CANNOT = (
    r"(?:\s+(?:can(?:no|')?t|cannot|can not|could ?n[o']t|won't|will not|am (?:not able|unable) to|"
    r"must decline to|have to decline to|refuse to)|'m (?:not able|unable) to)"
    r"(?:\s+(?:really|currently|simply|directly|be able to|in good conscience|ethically|just))?"
)
_HELP = (
    r"(?:help|assist|provide|fulfill?|comply|engage|discuss|support|participate)\b(?!\s+(?:fewer|less|more|exactly)\b)"
)
_DO = (
    r"(?:help|assist|provide|fulfill?|comply|engage|discuss|support|participate|answer|respond|share|give|create|write|"
    r"generate|complete|do (?:that|this)|offer|talk about|continue|process|access|browse|open|see|view)\b"
)
_SORRY = (
    r"(?:i(?:'m| am)\s+(?:(?:so|very|really|truly|deeply)\s+)?(?:sorry|afraid)|sorry|(?:my )?apologies|i apologi[sz]e|"
    r"unfortunately)"
    r"(?:\s+(?:for (?:the|any) [\w ]{1,30}|about that|to say))?(?:[,.:;]|\s+(?:but|that|and))*\s+(?:but\s+)?"
)
_AS_MODEL = r"as an? (?:ai|artificial intelligence|(?:large )?language model|assistant)[^,.\n]{0,40},\s*i"
_REFUSES = re.compile(
    r"[\s\"'*_>#-]*(?:(?:oh|well|hmm|hello|hi)[,.!]?\s+)?(?:"
    rf"{_SORRY}(?:as an? [^,.\n]{{3,60}},\s*)?i{_CANNOT}\s+{_DO}"
    rf"|i{_CANNOT}\s+{_HELP}"
    rf"|{_AS_MODEL}(?:{_CANNOT}\s+{_DO}|\s+(?:do not|don't) (?:have|feel|engage|provide))"
    r"|i (?:must|have to) (?:respectfully )?decline\b"
    r"|i(?:'m| am) not (?:comfortable|allowed|permitted|programmed|designed)\b"
    r"|(?:i(?:'m| am) )?sorry[,.]? (?:but )?(?:that|this)(?:'s| (?:request|question|topic))? ?(?:is|goes)? "
    r"(?:beyond|against|outside)\b"
    r")",
    re.IGNORECASE,
)
_SORRY_ZH = r"(?:非常|很|十分)?(?:抱歉|对不起|不好意思|遗憾)(?:地)?[，,。!！]?"
_MODEL_ZH = r"(?:一个|一款|一名)?(?:AI|人工智能|大?语言模型)"
_REFUSES_ZH = re.compile(
    rf"[\s\"“*#>-]*(?:您好|你好)?[，,。！!]?\s*(?:{_SORRY_ZH}|作为{_MODEL_ZH}[^，。\n]{{0,12}}[，,]|(?=这个问题我))\s*(?:[^。\n]{{0,20}}[，,])?\s*"
    r"(?:但)?(?:这个问题)?(?:我们?)?(?:暂时|目前|还|现在|恐怕)?"
    r"(?:无法|不能|没办法|没有办法|不可以|不便|不会|拒绝|无权|还没有学会)[^。\n]{0,4}?"
    r"(?:回答|提供|帮助|协助|满足|讨论|完成|给您|给你|为您|为你|继续|处理|生成|创作|参与|思考)"
)
_ASKS_REFUSAL = re.compile(
    r"\b(?:refus|declin|apolog|sorry|letter|email|dialogue|story|translate)|拒绝|道歉|抱歉|翻译|对话", re.IGNORECASE
)

_NAMES = (
    r"(?:deepseek(?:-\w+)*|chatgpt|gpt-?\d?\w*|claude|qwen|llama|gemini|mistral|kimi|grok|copilot|"
    r"通义千问|文心一言|豆包)"
)
_MAKERS = (
    r"(?:deepseek|openai|anthropic|alibaba(?: cloud)?|meta ai|google(?: deepmind)?|mistral|moonshot|microsoft|深度求索|"
    r"阿里(?:云|巴巴)|百度|字节跳动)"
)
_MODEL = (
    r"(?:an? (?:ai|artificial intelligence)(?:[- ](?:powered|based))? (?:language )?(?:model|assistant|chatbot)|"
    rf"an? (?:large )?language model|{_NAMES})"
)
_MADE = r"(?:created|developed|made|trained|built|designed)"
_IDENTITY = re.compile(
    r"(?<![\"“'「『])(?:"
    rf"\bas an? (?:(?:ai|artificial intelligence)(?: (?:language )?model| assistant)?|(?:large )?language model),? "
    rf"(?:i|my|{_MADE})\b"
    rf"|\b(?:i am|i'm|my name is) (?:just |only |called )?{_MODEL}(?![\w-])"
    rf"|\bi (?:was|am|have been) {_MADE} by {_MAKERS}\b"
    rf"|\b(?:ai|model|assistant),? {_MADE} by {_MAKERS}\b"
    rf"|我是(?:由)?(?:{_MODEL_ZH}|{_NAMES}|{_MAKERS})"
    rf"|作为{_MODEL_ZH}[^，。\n]{{0,10}}[，,]\s*我)",
    re.IGNORECASE,
)
_IDENTITY_HINTS = (
    *("language model", " ai ", " ai,", "as an ai", "i am ", "i'm ", "my name is", "我是", "作为"),
    *("created by", "developed by", "trained by", "made by", "built by"),
)
_ASKS_WHO = re.compile(
    r"\b(?:who|what) (?:are|made|created|built|trained) you\b|\byour (?:name|creator|developer|maker|identity)\b"
    r"|\bare you (?:an?|the|really|chat|deep|human|conscious)|\bintroduce yourself\b"
    r"|\b(?:ai|a\.i\.|artificial intelligence|language models?|chatbots?|assistants?|llms?|robots?)\b"
    r"|你是谁|你是什么|你叫什么|你的(?:名字|开发|创造)|人工智能|语言模型|机器人|自我介绍"
    rf"|{_NAMES}|{_MAKERS}",
    re.IGNORECASE,
)


def refusal(prompt: Prompt, trace: Trace, settings: RefusalSettings) -> Outcome:
    """`refusal`: a short answer that begins by refusing. `identity`: the reply calls itself a model or names its maker,
    and the question is about neither."""
    answer = (trace.answer or "").strip().replace("’", "'")
    refuses = 0 < len(answer) <= settings.longest and (_REFUSES.match(answer) or _REFUSES_ZH.match(answer))
    if refuses and not _ASKS_REFUSAL.search(prompt.question):
        return failing("refusal")
    named = settings.identity and any(_names_itself(text) for text in (answer, trace.reasoning) if text)
    return failing("identity") if named and not _ASKS_WHO.search(prompt.question) else PASS


def _names_itself(text: str) -> bool:
    lower = text.lower()
    return any(hint in lower for hint in _IDENTITY_HINTS) and _IDENTITY.search(text.replace("’", "'")) is not None
