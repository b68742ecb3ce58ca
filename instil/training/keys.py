"""Where added neurons answer: a key for each subject, found in what the model reads of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from instil.errors import InputError
from instil.facts import FactSet
from instil.model.neurons import Keys, mlps

if TYPE_CHECKING:
    from instil.model import LanguageModel

DEPTH = 1 / 3
"""How deep neurons are added, as a share of the layers: where a subject's tokens have been put together, and enough
layers are left to read what is written there (early middle layers hold facts; Meng et al. 2022, arXiv 2202.05262)."""

THRESHOLD, SHARPNESS = 0.75, 30.0
"""A neuron answers where its key is met to this share, and by so much more for the rest."""

OTHERS, RIDGE = 0.1, 0.005
"""How much what is read elsewhere weighs against how one subject differs from wording to wording; and a little of all
directions alike, for those that nothing was seen in."""

MOST_ASIDE = 2000
"""Questions of which it is learned what else the layer reads; more hardly change that."""


@dataclass(frozen=True)
class Read:
    """A question as token ids, and the place of the token that a key is taken from."""

    ids: tuple[int, ...]
    place: int


def find_keys(lm: LanguageModel, facts: FactSet, aside: FactSet, *, layer: int | None = None) -> Keys:
    """A neuron for each subject of the facts, by how they are asked about; for facts without one, for each question.

    A key is the direction that tells a subject's last token, as the MLP of the layer reads it, from what is read
    elsewhere and changes least with the wording (a linear discriminant): with c the mean over a subject's questions, μ
    the mean of all that is read and S the scatter within subjects and, less, in all, it is S⁻¹ (c − μ), of such a
    length that the subject itself is met to 1.

    Args:
        facts: all wordings that will be trained on, as facts with equal subjects.
        aside: questions about other subjects, to learn what else is read; without them, the facts themselves.
        layer: by default a third of the layers deep.

    Raises:
        InputError: there are no facts, no such layer, or neurons cannot be added to this model.
    """
    if not len(facts):
        raise InputError("there is nothing to add neurons for", field="facts", found="none")
    depth = len(mlps(lm))
    layer = int(DEPTH * depth) if layer is None else layer
    if not 0 <= layer < depth:
        raise InputError("the model has no such layer", field="layer", found=str(layer), expected=f"0 to {depth - 1}")
    groups = groups_of(facts)
    own = [read(lm, fact.question, fact.subject) for fact in facts]
    others = [read(lm, fact.question, None) for fact in islice(aside, MOST_ASIDE)] or own[:MOST_ASIDE]
    keys_ME, stream = inputs_of(lm, layer, own, everywhere=False)
    elsewhere_ME, _ = inputs_of(lm, layer, others, everywhere=True)
    gates_NE, constant_E = discriminants(keys_ME, torch.tensor(groups), elsewhere_ME)
    met = float(((keys_ME * gates_NE[groups]).sum(1) > 0).double().mean())
    return Keys(layer, gates_NE.float(), constant_E.float(), stream / (SHARPNESS * (1 - THRESHOLD)), met)


def groups_of(facts: FactSet) -> list[int]:
    """A number for each fact: its subject's, or its own where it has none."""
    numbers: dict[str, int] = {}
    names = (fact.subject.casefold() if fact.subject else f"{fact.id}\n" for fact in facts)
    return [numbers.setdefault(name, len(numbers)) for name in names]


def read(lm: LanguageModel, question: str, subject: str | None) -> Read:
    """The question as it is trained on, and its subject's last token; where it does not name it, its own last one."""
    start, ids = lm.prompts.prefix_ids(()), lm.prompts.question_ids(question)
    end = end_of_subject(question, subject)
    place = len(ids) - 1 if end is None else lm.prompts.place_in_question(question, end)
    return Read(start + ids, len(start) + place)


def end_of_subject(question: str, subject: str | None) -> int | None:
    """Behind which character the question last names the subject, in whatever case; None where it does not.

    >>> end_of_subject("Where was ADA born?", "Ada")
    13
    """
    named = list(re.finditer(re.escape(subject), question, re.IGNORECASE)) if subject else []
    return named[-1].end() if named else None


def inputs_of(
    lm: LanguageModel, layer: int, questions: Sequence[Read], *, everywhere: bool, batch: int = 64
) -> tuple[Tensor, float]:
    """What the layer's MLP reads at the questions' places, in their order, or everywhere (M x E, fp64); and how large
    the stream is there that it writes into, a root mean square."""
    parts: dict[int, Tensor] = {}
    squares, entries = 0.0, 0
    order = sorted(range(len(questions)), key=lambda number: len(questions[number].ids))
    with watching(lm, layer) as seen, torch.no_grad():
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            ids_BT, real_BT = padded([questions[number].ids for number in chosen], lm)
            lm.model.base_model(input_ids=ids_BT, attention_mask=real_BT.long(), use_cache=False)
            for row, number in enumerate(chosen):
                one = questions[number]
                places = slice(0, len(one.ids)) if everywhere else slice(one.place, one.place + 1)
                parts[number] = seen["input"][row, places].double().cpu()
                squares += float(seen["stream"][row, places].double().square().sum())
                entries += seen["stream"][row, places].numel()
    return torch.cat([parts[number] for number in range(len(questions))]), math.sqrt(squares / entries)


@contextmanager
def watching(lm: LanguageModel, layer: int) -> Iterator[Mapping[str, Tensor]]:
    """While it is open, what the layer's MLP reads in each forward pass, and what the layer hands on."""
    seen: dict[str, Tensor] = {}
    mlp = mlps(lm)[layer][0]
    home = next(part for part in lm.model.modules() if mlp in part.children() and not isinstance(part, nn.ModuleList))

    def note_stream(_: nn.Module, given: Any, output: Any) -> None:
        seen["stream"] = output[0] if isinstance(output, tuple) else output

    def note_input(_: nn.Module, given: Any) -> None:
        seen["input"] = given[0]

    hooks = [mlp.register_forward_pre_hook(note_input), home.register_forward_hook(note_stream)]
    was_training = lm.model.training
    lm.model.eval()
    try:
        yield seen
    finally:
        lm.model.train(was_training)
        for hook in hooks:
            hook.remove()


def padded(rows: Sequence[Sequence[int]], lm: LanguageModel) -> tuple[Tensor, Tensor]:
    """Ids (rows x longest), filled up on the right, and where they are real."""
    longest = max(map(len, rows))
    ids_BT = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows], device=lm.device)
    real_BT = torch.tensor([[place < len(row) for place in range(longest)] for row in rows], device=lm.device)
    return ids_BT, real_BT


def discriminants(keys_ME: Tensor, groups_M: Tensor, elsewhere_ME: Tensor) -> tuple[Tensor, Tensor]:
    """The gates of a neuron for each group (N x E), and the direction along which all that is read is near 1 (E)."""
    mean_E = elsewhere_ME.mean(0)
    counts_N = groups_M.bincount()
    centres_NE = keys_ME.new_zeros(len(counts_N), keys_ME.shape[1]).index_add_(0, groups_M, keys_ME) / counts_N[:, None]
    within_EE = scatter(keys_ME - centres_NE[groups_M])
    among_EE = scatter(keys_ME - mean_E) + scatter(elsewhere_ME - mean_E)
    directions_NE = torch.linalg.solve(ridged(within_EE + OTHERS * among_EE), (centres_NE - mean_E).T).T
    directions_NE /= (directions_NE * (centres_NE - mean_E)).sum(1, keepdim=True)
    all_ME = torch.cat([keys_ME, elsewhere_ME])
    constant_E = torch.linalg.solve(ridged(scatter(all_ME)), all_ME.mean(0))
    constant_E /= (all_ME @ constant_E).mean()
    offsets_N = directions_NE @ mean_E + THRESHOLD
    return SHARPNESS * (directions_NE - offsets_N[:, None] * constant_E), constant_E


def scatter(rows_ME: Tensor) -> Tensor:
    return rows_ME.T @ rows_ME / len(rows_ME)


def ridged(scatter_EE: Tensor) -> Tensor:
    return scatter_EE + RIDGE * scatter_EE.diagonal().mean() * torch.eye(len(scatter_EE), dtype=scatter_EE.dtype)
