"""Common words of languages in Latin letters, and the names of languages: what tells a foreign sentence cheaply.

Chosen so that a word of one list is hardly ever one of another language's: of two that share one, neither has it.
"""

from __future__ import annotations

_WORDS = {
    "en": """the and of that this it we you she they his her their with from are then but not which what each there
        would will should can could since because therefore if let how when where have has had been these those both
        by be first gives equals using must i'll let's we'll it's that's don't doesn't""",
    "de": "und der das ist nicht mit ein eine einen sich auch auf für wir sie dass wenn dann wird sind von zu den dem",
    "fr": "le les des est une pour dans qui que nous vous donc avec sur pas ce cette il elle sont aux du et",
    "es": "el los las es una para que con por como del se más pero entonces hay cada este esta son y",
    "it": "il di che è una per con non sono della del gli questo questa quindi anche più ogni dei le",
    "pt": "os as é uma para que com não por mais dos das então cada isso são um do da em",
    "nl": "het een van en dat niet met zijn voor wij dus ook als deze wordt aan er",
    "sv": "och att det som är inte med en ett för av vi så den till",
    "da": "og at det som er ikke med en et for af vi så den til",
    "no": "og at det som er ikke med en et for av vi så den til",
    "pl": "i w nie się że na jest do z więc ale jak czy oraz ma",
    "id": "yang dan di ini itu dengan untuk dari adalah tidak akan jadi kita ada",
    "vi": "là và của có không cho các một được trong vậy nên ta số",
    "tr": "ve bir bu için ile de da olan değil olarak kadar",
}
FUNCTION_WORDS: dict[str, frozenset[str]] = {code: frozenset(words.split()) for code, words in _WORDS.items()}
"""ISO 639-1 code → words in lower case."""

_NAMES = {
    "zh": "chinese mandarin 中文 汉语 文言 hanzi pinyin",
    "en": "english 英文 英语 anglais englisch inglés",
    "ja": "japanese 日文 日语 kanji",
    "ko": "korean 韩文 韩语",
    "de": "german 德文 德语 deutsch",
    "fr": "french 法文 法语 français",
    "es": "spanish 西班牙 español",
    "it": "italian 意大利",
    "pt": "portuguese 葡萄牙",
    "nl": "dutch 荷兰",
    "ru": "russian 俄文 俄语",
    "ar": "arabic 阿拉伯",
    "hi": "hindi sanskrit",
    "el": "greek 希腊",
    "he": "hebrew",
    "tr": "turkish",
    "pl": "polish",
    "sv": "swedish",
    "vi": "vietnamese 越南",
    "id": "indonesian",
    "th": "thai",
}
NAMED: dict[str, str] = {name: code for code, names in _NAMES.items() for name in names.split()}
"""Name of a language in lower case → its code: a question that names one may be answered in it."""
