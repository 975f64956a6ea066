"""Who `distill chat` talks to: a run's student, a model folder, a GGUF file or a server, and under which contract.

Part of the command line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from distill.contract import CONTRACT_FILE, STEP_BY_STEP, Contract
from distill.engines.openai import is_url, required_model
from distill.engines.streaming import Talker
from distill.errors import UsageError
from distill.records import Kind

KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True, slots=True)
class Partner:
    """A model to talk to, and the contract it was trained under, None where it does not say."""

    talker: Talker
    contract: Contract | None

    def instruction(self) -> dict[str, str]:
        """Instructions by kind of question. A model that does not say gets R1's own for mathematics."""
        if self.contract is None:
            return {"math": STEP_BY_STEP}
        return dict(self.contract.instruction or {})


def partner(where: str, *, model: str | None, context: int) -> Partner:
    """Loads or reaches the model that `where` names. Raises UsageError when it names none."""
    if is_url(where):
        return _served(where, model)
    if model is not None:
        raise UsageError("--model NAME is for a server", given=where, todo="leave it out, or give a URL")
    place = Path(where)
    weights = place / "student" if (place / "recipe.yaml").is_file() else place
    if not weights.exists():
        what = f"the run {place} has no student yet" if weights != place else f"there is no {place}"
        todo = (
            f"run `distill train {place}`" if weights != place else "give a run, a model folder, a .gguf file or a URL"
        )
        raise UsageError(what, todo=todo)
    from distill.examine.models import gguf_in

    file = gguf_in(weights)
    if file is not None:
        from distill.engines.streaming_gguf import GgufTalker

        contract = contract_beside(file.parent)
        return Partner(GgufTalker(file, contract, context), contract)
    from distill.engines.streaming_local import LocalTalker

    contract = contract_beside(weights)
    return Partner(LocalTalker(str(weights), contract, context), contract)


def contract_beside(folder: Path) -> Contract | None:
    """The contract in the distill.json of a folder, None where there is no such file."""
    from distill.examine.models import model_contract

    return model_contract(folder) if (folder / CONTRACT_FILE).is_file() else None


def check_kind(kind: str) -> str:
    if kind not in get_args(Kind):
        raise UsageError(f"there is no kind '{kind}'", todo=f"give one of: {', '.join(get_args(Kind))}")
    return kind


def _served(url: str, model: str | None) -> Partner:
    from distill.engines.streaming_openai import ServerTalker

    return Partner(ServerTalker(url, required_model(url, model), os.environ.get(KEY_VARIABLE)), None)
