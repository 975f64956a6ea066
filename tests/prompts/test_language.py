"""The language of questions that were written for these tests, and of those in which formulas outweigh the prose."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from distill.problems import arithmetic
from distill.prompts import language as module
from distill.prompts.function_words import FUNCTION_WORDS
from distill.prompts.language import language, without_formulas

OTHERS = Path(__file__).parents[1] / "data/other_languages.json"
GSM8K = Path(__file__).parents[3] / "shared/data/gsm8k_train_1000.jsonl"

QUESTIONS = {
    "en": (
        "How many apples are left in the basket?",
        "If Tom pays $5 and gets $2 back, what did the book cost?",
        "Factor completely: $x^2-9$.",
        "Find all real solutions of \\(x^2=4\\).",
        "Let $ABC$ be a triangle with $AB=3$. Find its area.",
        "Write a Python function that doubles its input.\n```python\ndef verdoppeln(zahl): ...\n```",
        "Simplify: 3(x+2)",
        "Solve for $x$: $2x+3=7$.",
        "HOW MANY PENS DOES ANNA HAVE?",
    ),
    "de": (
        "Anna hat 12 Äpfel und gibt Ben 5 davon. Wie viele Äpfel hat sie noch?",
        "Berechne die Summe der ersten zehn Primzahlen.",
        "Kosten $5 zwei Hefte mit vierzig Seiten und drei Stifte für die Schule $3?",
        "Bestimme den Flächeninhalt von $\\text{triangle } ABC$ mit den Seiten 3, 4 und 5.",
    ),
    "fr": ("Un train parcourt 120 km en 2 heures. Quelle est sa vitesse moyenne ?", "Calculer l'aire du triangle."),
    "es": ("María compra 3 cuadernos a 2 euros cada uno. ¿Cuánto paga en total?", "Resuelve la ecuación $2x+1=5$."),
    "it": ("Luca ha 20 biglie e ne perde 7. Quante biglie gli restano?",),
    "pt": ("O João tem 15 maçãs e compra mais 8. Quantas maçãs ele tem agora?",),
    "nl": ("Een fietser rijdt 45 km in 3 uur. Wat is zijn gemiddelde snelheid?",),
    "sv": ("Lisa har 14 bollar och köper 6 till. Hur många bollar har hon nu?",),
    "pl": ("Kasia ma 9 jabłek, a Tomek dwa razy więcej. Ile jabłek mają razem?",),
    "cs": ("Petr má 8 kuliček a dostane dalších 5. Kolik kuliček má teď?",),
    "hu": ("Egy bolt 30 almát adott el délelőtt és 25-öt délután. Hány almát adott el összesen?",),
    "tr": ("Ayşe'nin 24 kalemi var ve 9 tanesini kardeşine veriyor. Kaç kalemi kaldı?",),
    "vi": ("Lan có 15 quả táo, cho bạn 4 quả. Hỏi Lan còn lại bao nhiêu quả táo?",),
    "id": ("Budi membeli 3 buku seharga 5000 rupiah. Berapa total uang yang harus dibayar?",),
    "ru": ("У Маши было 12 яблок, она отдала 5 Пете. Сколько яблок осталось у Маши?",),
    "uk": ("У Марійки було 15 цукерок, вона з'їла 6. Скільки цукерок залишилося?",),
    "ar": ("لدى أحمد ٢٤ تفاحة وأعطى أخته ٩ تفاحات. كم تفاحة بقيت معه؟",),
    "fa": ("علی ۱۲ سیب دارد و ۵ تای آن را به دوستش می‌دهد. چند سیب برایش باقی می‌ماند؟",),
    "hi": ("राम के पास 15 सेब हैं और वह 6 सेब अपने दोस्त को देता है। अब उसके पास कितने सेब बचे?",),
    "zh": ("小明有12个苹果，他给了小红5个。小明还剩几个苹果？", "求函数 $f(x)=x^2$ 的最小值。", "计算 $1+1$。"),
    "ja": ("太郎はりんごを12個持っています。5個を花子にあげました。残りはいくつですか。",),
    "ko": ("민수는 사과 12개를 가지고 있습니다. 5개를 친구에게 주면 몇 개가 남습니까?",),
    "el": ("Η Μαρία έχει 12 μήλα και δίνει 5 στον Νίκο. Πόσα μήλα της μένουν;",),
    "he": ("לדנה יש 12 תפוחים והיא נותנת 5 לחבר. כמה תפוחים נשארו לה?",),
    "th": ("มานะมีแอปเปิล 12 ผล ให้เพื่อน 5 ผล มานะเหลือแอปเปิลกี่ผล",),
    "bn": ("রহিমের কাছে ১২টি আপেল আছে। সে ৫টি বন্ধুকে দিল। এখন তার কাছে কয়টি আপেল আছে?",),
}


@pytest.mark.parametrize(("code", "text"), [(code, text) for code, texts in QUESTIONS.items() for text in texts])
def test_real_questions(code: str, text: str) -> None:
    assert language(text) == code
    assert language(text.replace(" ", "\n")) == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "$x^2 + y^2 = \\text{const}$",
        "\\[ \\text{speed} = \\frac{\\text{distance}}{\\text{time}} \\text{whenever} t > 0 \\]",
        "12 + 5 = ?",
        "😀 🎉",
        "https://example.org/how-many-apples-are-left",
        "θ = π/3, α + β",
        "α, β, γ, δ, ε, ζ, η, θ, κ, λ, μ, π",
        "x 是",
        "```\nwhile there is something left: print it and continue\n```",
        "\u0301\u0301\u0301",
        "ABC DEF GHI",
        "\ud800",
    ],
)
def test_too_little_prose_to_tell(text: str) -> None:
    assert language(text) is None


def test_the_built_in_problems_are_english() -> None:
    texts = [problem.question for problem in itertools.islice(arithmetic.problems("train", 1), 500)]
    assert {language(text) for text in texts} == {"en"}


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("ro", "Un tren are 8 vagoane. Fiecare vagon are 12 locuri, iar trenul are și 3 uși. Câte locuri are trenul?"),
        ("nl", "Jan had 5 knikkers en Piet had er 7. Als we ze samen tellen, of apart, hoeveel had Jan of Piet?"),
        ("no", "Her er 5 epler. Her er 3 pærer. Hvor mange frukter er det her til sammen?"),
        ("es", "¿Cuántos libros has leído si has comprado 5 y has vendido 3? Yo he leído 2 y tú has leído el resto."),
        ("cs", "Petrovi je 12 let, Pavlovi je 7 let a Janě je 9 let. Kolik let je všem dohromady?"),
    ],
)
def test_words_that_english_shares_with_another_language_settle_nothing(code: str, text: str) -> None:
    assert language(text) in (code, "da") if code == "no" else language(text) == code


@pytest.mark.parametrize("part", ["https://a.b/c", "www.beispiel.de/seite", "`eins zwei`", "<b>", "\\alpha", "a@b.de"])
def test_what_is_no_prose_is_left_out(part: str) -> None:
    assert without_formulas(f"one {part} two").split() == ["one", "two"]


@pytest.mark.skipif(not GSM8K.exists(), reason="the shared data are not here")
def test_gsm8k_is_english() -> None:
    questions = [json.loads(line)["question"] for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    assert [question for question in questions if language(question) != "en"] == []


def test_common_words_of_english_settle_it_and_stand_in_no_other_language(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = json.loads(OTHERS.read_text(encoding="utf-8"))
    foreign = [text for part in ("sentences", "held_out") for code, found in texts[part].items() for text in found]
    foreign += [one[part] for one in texts["traces"] if one["language"] != "en" for part in ("question", "answer")]
    english = set(texts["sentences"]["en"])
    told = [text for text in foreign if text not in english]
    assert len(told) > 50
    assert [text for text in told if not FUNCTION_WORDS["en"].isdisjoint(text.lower().split())] == []
    monkeypatch.setattr(module, "identifier", lambda languages: pytest.fail("the model was asked"))
    assert language("Each of the boxes has 4 apples, and they are sold when all of them have been filled.") == "en"


@pytest.mark.parametrize("part", ["$a", "```", "<a", "@", "a@", "\\begin{a}", "\\[", "w", "`a", "\\("])
def test_a_megabyte_of_one_part_ends(part: str) -> None:
    assert language(part * (1_000_000 // len(part))) is None
