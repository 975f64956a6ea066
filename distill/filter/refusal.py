"""Does an answer refuse, or a reply say who is speaking? English and Chinese, by the words that such answers begin with.

A text that mentions a refusal, quotes one or is asked to write one is none. Knows nothing about what may be asked.
"""

from __future__ import annotations

import re

from distill.filter_specs import RefusalSettings
from distill.records import Prompt, Trace
from distill.verify import PASS, Outcome, failing

_CANNOT = r"(?:can(?:no|')?t|cannot|can not|could ?n[o']t|won't|will not|am (?:not able|unable) to|'m (?:not able|unable) to|must decline to|have to decline to|refuse to)"
_TASK = (
    r"(?:help|assist|provide|fulfil|fulfill|comply|answer|respond|discuss|engage|support|share|give|create|write|generate|"
    r"complete|do that|do this|offer|talk about|participate|continue|process|access|browse|open|see|view)\b"
)
_ADVERBS = r"(?:\s+(?:really|currently|simply|directly|be able to|in good conscience|ethically|just))?"
_REFUSES = re.compile(
    r"[\s\"'*_>#-]*(?:(?:oh|well|hmm|hello|hi)[,.!]?\s+)?"
    rf"(?:(?:i(?:'m| am)?\s+(?:(?:so|very|really|truly|deeply)\s+)?(?:sorry|afraid)|sorry|(?:my )?apolog(?:ies|ize)|i apologi[sz]e|"
    rf"unfortunately)(?:\s+(?:for (?:the|any) [\w ]{{1,30}}|about that|to say))?(?:[,.:;]|\s+(?:but|that|and))*\s+(?:but\s+)?(?:as an? [^,.\n]{{3,60}},\s*)?"
    rf"i(?:\s+{_CANNOT}|{_CANNOT}){_ADVERBS}\s+{_TASK}"
    rf"|i(?:\s+{_CANNOT}|{_CANNOT}){_ADVERBS}\s+(?:help|assist|provide|fulfil|fulfill|comply|engage|discuss|support|participate)\b"
    r"(?! (?:fewer|less|more|exactly|both|all|every)\b)"
    r"|as an? (?:ai|artificial intelligence|(?:large )?language model|assistant)[^,.\n]{0,40},\s*i"
    rf"(?:\s+{_CANNOT}|{_CANNOT}|\s+(?:do not|don't) (?:have|feel|engage|provide))"
    r"|i (?:must|have to) (?:respectfully )?decline\b"
    r"|i(?:'m| am) not (?:comfortable|allowed|permitted|programmed|designed)\b"
    r"|(?:sorry|i'm sorry|i am sorry)[,.]? (?:i )?(?:that|this) (?:request|question|topic)? ?(?:is|goes) (?:beyond|against|outside)\b"
    r"|(?:sorry, )?(?:that's|that is|this is) beyond my current scope"
    r")",
    re.IGNORECASE,
)
_REFUSES_ZH = re.compile(
    r"[\s\"“*#>-]*(?:您好|你好)?[，,。！!]?\s*(?:(?:非常|很|十分)?(?:抱歉|对不起|不好意思|遗憾)(?:地)?[，,。!！]?|作为(?:一个|一名)?(?:AI|人工智能|语言模型)[^，。\n]{0,12}[，,])\s*"
    r"(?:[^。\n]{0,20}[，,])?\s*(?:但)?(?:我|这个问题我|我们)?(?:暂时|目前|还|现在|恐怕)?(?:无法|不能|没办法|没有办法|不可以|不便|不会|拒绝|无权|还没有学会)[^。\n]{0,4}?"
    r"(?:回答|提供|帮助|协助|满足|讨论|完成|给您|给你|为您|为你|继续|处理|生成|创作|参与|思考|这)"
)
_NAMES = r"(?:deepseek(?:-\w+)*|chatgpt|gpt-?\d?\w*|claude|qwen|llama|gemini|mistral|kimi|grok|copilot|tongyi(?: qianwen)?|通义千问|文心一言|豆包|深度求索)"
_MAKERS = r"(?:deepseek|openai|anthropic|alibaba(?: cloud)?|meta ai|google(?: deepmind)?|mistral|moonshot|microsoft|深度求索|阿里(?:云|巴巴)|百度|字节跳动)"
_IDENTITY = re.compile(
    r"(?<![\"“'「『])\b(?:as an? (?:ai|artificial intelligence)(?: (?:language )?model| assistant)?,? (?:i|my|developed|created|made|trained|designed)\b"
    r"|as an? (?:large )?language model,? (?:i|my|developed|created|made|trained|designed)\b"
    rf"|(?:i am|i'm|my name is) (?:just |only |called )?(?:an? (?:ai|artificial intelligence)(?:[- ](?:powered|based))? (?:language )?(?:model|assistant|chatbot)|an? (?:large )?language model|{_NAMES})(?![\w-])"
    rf"|i (?:was|am|have been) (?:created|developed|made|trained|built) by {_MAKERS}\b"
    rf"|(?:ai|model|assistant),? (?:created|developed|made|trained|built) by {_MAKERS}\b)"
    rf"|(?<![\"“「『])(?:我是(?:一个|一款|由)?(?:AI|人工智能|大?语言模型|{_NAMES}|{_MAKERS})|作为(?:一个|一款|一名)?(?:AI|人工智能|大?语言模型)[^，。\n]{{0,10}}[，,]\s*我)",
    re.IGNORECASE,
)
_ASKS_WHO = re.compile(
    r"\b(?:who|what) (?:are|made|created|built|trained) you\b|\byour (?:name|creator|developer|maker|identity|opinion|feelings?)\b|are you (?:an?|the|really|chat|deep|human|conscious)"
    r"|\b(?:ai|a\.i\.|artificial intelligence|language models?|chatbots?|assistant|llms?|robots?)\b|你是谁|你是什么|你叫什么|你的(?:名字|开发|创造)|人工智能|语言模型|机器人|introduce yourself|自我介绍"
    rf"|{_NAMES}|{_MAKERS}",
    re.IGNORECASE,
)
_ASKS_REFUSAL = re.compile(
    r"\b(?:refus|declin|apolog|sorry|reply|letter|email|dialogue|story|translate)|拒绝|道歉|抱歉|翻译|对话",
    re.IGNORECASE,
)
_IDENTITY_HINTS = (
    "language model",
    " ai ",
    " ai,",
    "as an ai",
    "i am ",
    "i'm ",
    "created by",
    "developed by",
    "trained by",
    "made by",
    "built by",
    "my name is",
)


def refusal(prompt: Prompt, trace: Trace, settings: RefusalSettings) -> Outcome:
    """`refusal`: a short answer that begins by refusing. `identity`: the reply calls itself a model or names its maker,
    and the question is about neither."""
    answer = (trace.answer or "").strip().replace("’", "'")
    if 0 < len(answer) <= settings.longest and (_REFUSES.match(answer) or _REFUSES_ZH.match(answer)):
        if not _ASKS_REFUSAL.search(prompt.question):
            return failing("refusal")
    if settings.identity and any(_names_itself(text) for text in (answer, trace.reasoning) if text):
        if not _ASKS_WHO.search(prompt.question):
            return failing("identity")
    return PASS


def _names_itself(text: str) -> bool:
    lower = text.lower()
    hinted = any(hint in lower for hint in _IDENTITY_HINTS) or (
        not text.isascii() and ("我是" in text or "作为" in text)
    )
    return hinted and _IDENTITY.search(text.replace("’", "'")) is not None
