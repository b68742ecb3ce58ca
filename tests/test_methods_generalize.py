"""`generalize`: which copies it trains on, and how its steps are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instil.augment import FORMATS
from instil.errors import InputError
from instil.facts import Corpus, Document, Fact, FactSet
from instil.facts.lesson_roles import Roles
from instil.ledger import Ledger
from instil.loop import teach
from instil.methods import get
from instil.model import LanguageModel
from instil.training import Stage, TrainConfig
from instil.training.packing import pack, prove_apart
from tests.half_taught import SECTIONS, half_taught, practised, practised_documents
from tests.models import tiny_model

LIVES = Corpus(Document(f"d{n}", f"Ada {n} was born in London. She wrote programs.", f"Ada {n}") for n in range(6))
ASKED = FactSet(Fact(f"q{n}", f"Where was Bea {n} born?", ("Rome",)) for n in range(3))
READ = Corpus([Document("p0", "Bea 0 was born in Rome.")])


def stages(roles: Roles, **config: Any) -> list[Stage]:
    method = get("generalize")
    assert method.plan is not None
    return list(method.plan(roles, method.settings(config)))


def test_every_document_is_read_in_its_own_form_and_in_others() -> None:
    reading, tuning = stages(Roles(practice=ASKED, documents=LIVES, practice_documents=READ), copies=3)
    assert len(reading.documents) == 4 * (len(LIVES) + len(READ)) and not len(reading.questions)
    by_original: dict[str, list[Document]] = {}
    for document in reading.documents:
        by_original.setdefault(document.original, []).append(document)
    assert by_original.keys() == {*LIVES.by_id, *READ.by_id}
    for original, (first, *copies) in by_original.items():
        assert first.id == original
        assert original == "p0" or len({first.text, *(copy.text for copy in copies)}) == 4, "one sentence has no order"
    assert list(tuning.questions) == list(ASKED)
    assert tuning.config.learning_rate == pytest.approx(reading.config.learning_rate / 6)


def test_its_copies_never_share_a_packed_row() -> None:
    (reading,) = stages(Roles(documents=LIVES), copies=4)
    examples = reading.examples(LanguageModel.of(*tiny_model("llama")).prompts, 512)
    keys = [example.key for example in examples]
    rows = pack(range(len(examples)), [len(example) for example in examples], keys, 512)
    prove_apart(rows, keys)
    assert set(keys) == set(LIVES.by_id) and any(len(row) > 1 for row in rows)


def test_questions_come_in_other_formats_with_their_answers_as_they_are() -> None:
    _, tuning = stages(Roles(practice=ASKED, documents=LIVES), question_copies=2)
    assert len(tuning.questions) == 3 * len(ASKED)
    for fact in tuning.questions:
        original = ASKED.by_id[fact.id.partition("#")[0]]
        assert fact.answers == original.answers
        assert fact.id == original.id or fact.question != original.question
        assert "".join(filter(str.isalnum, fact.question)) == "".join(filter(str.isalnum, original.question))


def test_a_recipe_gives_what_is_not_given() -> None:
    settings: Any = get("generalize").settings
    assert settings().train.sharpness is None and settings().copies == len(settings().formats) == 6
    assert all(name.startswith("shuffling+") for name in settings().formats)
    paper = settings({"recipe": "paper"})
    assert paper.formats == tuple(FORMATS) and paper.copies == 4 and paper.train.sharpness.kind == "sam"
    assert settings({"recipe": "paper", "train": {"epochs": 3}}).train.sharpness.kind == "sam"
    assert settings({"recipe": "paper", "train": {"sharpness": None}}).train.sharpness is None
    assert settings({"recipe": "paper", "train": TrainConfig()}).train.sharpness is None
    assert settings({"recipe": "paper", "copies": 1}).formats == tuple(FORMATS)
    assert settings({"train": {"sharpness": {"rho": 0.2}}}).train.sharpness.rho == 0.2
    assert settings({"formats": ["bullets"]}).copies == 6
    with pytest.raises(InputError, match="no such format"):
        settings({"formats": ["bullet"]})
    with pytest.raises(InputError, match="recipe"):
        settings({"recipe": "best"})


def test_both_stages_are_trained_with_sharpness_aware_steps(tmp_path: Path) -> None:
    train = {"epochs": 1, "learning_rate": 2e-3, "save_seconds": 0, "batch_size": 8}
    call: dict[str, Any] = {"method": "generalize", "documents": practised_documents()}
    config = {"recipe": "paper", "train": train, **SECTIONS}
    teach(half_taught(), practised(), out=tmp_path / "run", config=config, **call)
    rows = Ledger(tmp_path / "run" / "ledger").read("stages").to_pylist()
    assert {row["stage"] for row in rows} == {"continued pre-training", "instruction tuning"}
    assert all(row["move_norm"] > 0 for row in rows)
