"""Every shipped student is real: it builds without weights at its published size, and its figures are the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill import specs
from distill.contract import CLOSE, OPEN, Response
from distill.sizes import R1_STUDENTS, Sizes
from distill.student_specs import context_length_of
from distill.train.architecture import meta_student
from distill.train.tokenizer import prepare_tokenizer, rows_to_train
from distill.train_specs import TrainSettings
from train.published import llama_tokenizer, qwen_tokenizer

CHECKOUT = Path(__file__).resolve().parents[2]

PAPER = {
    "r1-distill-qwen-1.5b": ("Qwen/Qwen2.5-Math-1.5B", 1e-4),
    "r1-distill-qwen-7b": ("Qwen/Qwen2.5-Math-7B", 8e-5),
    "r1-distill-qwen-14b": ("Qwen/Qwen2.5-14B", 7e-5),
    "r1-distill-qwen-32b": ("Qwen/Qwen2.5-32B", 6e-5),
    "r1-distill-llama-8b": ("meta-llama/Llama-3.1-8B", 5e-5),
    "r1-distill-llama-70b": ("meta-llama/Llama-3.3-70B-Instruct", 2e-5),
}
"""arXiv 2501.12948v2, B.4.3, table 6."""
NEAREST = {
    "qwen3-0.6b": "r1-distill-qwen-1.5b",
    "qwen3-1.7b": "r1-distill-qwen-1.5b",
    "qwen3-4b": "r1-distill-qwen-7b",
    "qwen3-8b": "r1-distill-qwen-7b",
    "qwen3-14b": "r1-distill-qwen-14b",
    "llama-3.2-1b": "r1-distill-qwen-1.5b",
    "llama-3.2-3b": "r1-distill-qwen-1.5b",
}
"""Whose learning rate a student without a published one has."""
PARAMETERS = {
    "r1-distill-qwen-1.5b": 1_543_714_304,
    "r1-distill-qwen-7b": 7_615_616_512,
    "r1-distill-qwen-14b": 14_770_033_664,
    "r1-distill-qwen-32b": 32_763_876_352,
    "r1-distill-llama-8b": 8_030_261_248,
    "r1-distill-llama-70b": 70_553_706_496,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "smollm2-135m": 134_515_008,
}
"""As published; written down here a second time, so that a slip in a spec shows."""
OF_THE_HUB = [*PAPER, *NEAREST]
IDS = {"qwen2.5": (151_665, 151_666), "qwen3": (151_667, 151_668), "llama": (128_002, 128_003)}
"""Where the think tags are."""


def student(name: str) -> Any:
    return specs.load("students", name)


def family(name: str) -> str:
    return "llama" if "llama" in name else "qwen3" if name.startswith("qwen3") else "qwen2.5"


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("published")
    return {
        "qwen2.5": qwen_tokenizer(folder / "qwen2.5"),
        "qwen3": qwen_tokenizer(folder / "qwen3", thinks=True),
        "llama": llama_tokenizer(folder / "llama"),
    }


@pytest.mark.parametrize("name", specs.names("students"))
def test_builds_without_weights_at_its_published_size(name: str) -> None:
    spec = specs.student(name)
    assert spec.name == name
    assert spec.source
    assert spec.license
    assert spec.architecture is not None
    model = meta_student(spec)
    assert all(weight.is_meta for weight in model.parameters())
    rows = model.get_input_embeddings().num_embeddings
    assert model.num_parameters() == spec.parameters == PARAMETERS.get(name, spec.parameters)
    sizes = Sizes.of(spec.architecture, rows)
    assert sizes.parameters == spec.parameters
    cache = model.config.num_key_value_heads * model.config.head_dim * 2 * 2 if hasattr(model.config, "head_dim") else 0
    assert sizes.kv_bytes_per_token() == cache * model.config.num_hidden_layers


def test_all_that_are_shipped_are_known_here() -> None:
    assert {*OF_THE_HUB, "smollm2-135m", "tiny-llama", "tiny-qwen"} == set(specs.names("students"))


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_students_have_its_bases_rates_and_epochs(name: str) -> None:
    spec = student(name)
    assert (spec.base, spec.learning_rate) == PAPER[name]
    (phase,) = spec.phases(TrainSettings())
    assert (phase.learning_rate, phase.epochs) == (PAPER[name][1], 2)
    assert "2501.12948v2" in spec.source


@pytest.mark.parametrize("name", NEAREST)
def test_a_student_without_a_published_rate_has_that_of_the_nearest(name: str) -> None:
    spec, like = student(name), student(NEAREST[name])
    assert spec.learning_rate == like.learning_rate
    ratios = {other: max(spec.parameters / (n := student(other).parameters), n / spec.parameters) for other in PAPER}
    same = {other: ratio for other, ratio in ratios.items() if "qwen" in other}
    assert min(same, key=lambda other: same[other]) == NEAREST[name]
    text = (CHECKOUT / "students" / f"{name}.yaml").read_text(encoding="utf-8")
    assert "# None is published for distilling this base." in text


@pytest.mark.parametrize("name", OF_THE_HUB)
def test_traces_of_32k_tokens_fit_every_student(name: str) -> None:
    spec = student(name)
    assert context_length_of(spec, spec.architecture, TrainSettings()) == 32_768
    assert (spec.context_extension is not None) == ("Math" in spec.base), "only these have as few as 4,096 positions"
    if spec.context_extension is not None:
        assert spec.architecture.max_position_embeddings == 4_096
        assert (spec.context_extension.rope_theta, spec.context_extension.max_position_embeddings) == (3e5, 131_072)


def one_of_a_kind() -> list[str]:
    """One student for each way in which tokens are treated: the others differ in size alone."""
    kinds: dict[str, str] = {}
    for name in OF_THE_HUB:
        spec = student(name)
        treated = ("template", "forced_prefix", "thinks", "reserved_tokens", "untrained_tokens", "pad_token", "system")
        kinds.setdefault(family(name) + repr([getattr(spec, field) for field in treated]), name)
    return list(kinds.values())


def test_there_are_four_kinds_of_students() -> None:
    assert one_of_a_kind() == ["r1-distill-qwen-1.5b", "r1-distill-llama-8b", "r1-distill-llama-70b", "qwen3-0.6b"]


@pytest.mark.parametrize("name", one_of_a_kind())
def test_serves_its_contract_with_a_tokenizer_like_its_own(name: str, tokenizers: dict[str, Path]) -> None:
    spec = student(name).model_copy(update={"tokenizer": str(tokenizers[family(name)])})
    tokenizer = prepare_tokenizer(spec)
    assert len(tokenizer) <= spec.architecture.vocab_size, "nothing grows"
    tags = tuple(tokenizer.convert_tokens_to_ids(tag) for tag in (OPEN, CLOSE))
    assert tags == IDS[family(name)]
    encoded = spec.contract.encode(tokenizer, spec.contract.messages("What is 1 + 1?", "math"), Response("One.", "2"))
    loss = encoded.ids[encoded.loss_start :]
    assert loss[0] == tags[0]
    assert loss.count(tags[1]) == 1
    assert tokenizer.decode(loss) == f"<think>\nOne.\n</think>\n\n2{spec.contract.stop}"
    assert tokenizer.decode(loss, skip_special_tokens=True) == "<think>\nOne.\n</think>\n\n2"
    assert tokenizer.pad_token_id not in {tokenizer.eos_token_id, *encoded.ids}
    headers = [128_006, 128_007, 128_009]
    expected = {
        "qwen2.5": [*tags],
        "qwen3": [],
        "llama": [*tags] + headers * (spec.base != PAPER["r1-distill-llama-70b"][0]),
    }
    assert rows_to_train(spec, tokenizer) == expected[family(name)]


def test_the_sizes_that_planning_knows_are_those_of_the_specs() -> None:
    """But for the head: R1's own 1.5B has one, which its base ties to the embedding."""
    for name, sizes in R1_STUDENTS.items():
        architecture = student(name.lower()).architecture
        tied = name == "R1-Distill-Qwen-1.5B"
        ours = Sizes.of(architecture.model_copy(update={"tie_word_embeddings": False}) if tied else architecture)
        assert ours == sizes, name
        assert architecture.tie_word_embeddings == tied


@pytest.mark.parametrize("name", [name for name in OF_THE_HUB if "llama" in name])
def test_what_llamas_licence_asks_for_is_said(name: str) -> None:
    spec = student(name)
    assert spec.license == f"llama{spec.base.partition('Llama-')[2][:3]}"
    assert "Built with Llama" in spec.description
    assert 'name that begins with "Llama"' in (CHECKOUT / "students" / f"{name}.yaml").read_text(encoding="utf-8")


def rows_of_the_page() -> list[str]:
    """What the table of docs/students.md has to be."""
    rows = []
    for name, spec in sorted(((n, student(n)) for n in OF_THE_HUB), key=lambda item: item[1].parameters):
        extension, base = spec.context_extension, spec.architecture.max_position_embeddings
        context = f"{base:,} → {extension.max_position_embeddings:,}" if extension else f"{base:,}"
        added = ["<think>", "</think>"] if family(name) == "qwen2.5" else []
        means = [f"`{token}`".replace("|", "\\|") for token in (*added, *spec.reserved_tokens, *spec.untrained_tokens)]
        rate = f"{spec.learning_rate:.0e}".replace("e-0", "e-")
        cells = [
            f"`{name}`",
            spec.base,
            spec.license,
            f"{spec.parameters:,}",
            rate,
            context,
            ", ".join(means) or "none",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def test_the_page_on_students_says_what_the_specs_say() -> None:
    page = (CHECKOUT / "docs" / "students.md").read_text(encoding="utf-8")
    told = [line for line in page.splitlines() if line.startswith("| `") and line.count(" | ") == 6]
    assert told == rows_of_the_page()
    assert "(docs/students.md)" in (CHECKOUT / "README.md").read_text(encoding="utf-8")
