"""Texts sampled together: what a model writes behind an opening."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from instil.model.modes import evaluating

if TYPE_CHECKING:
    from instil.model.language import LanguageModel


def continued(
    lm: LanguageModel,
    openings: Sequence[Sequence[int]],
    *,
    temperature: float,
    max_tokens: int,
    ends: Collection[int],
    key: str,
) -> list[list[int]]:
    """What follows each opening, sampled without top-k or top-p.

    Where all openings are the same it is computed once for all of them, and a text that has ended no further: a third
    of `generated`'s operations where texts are short.

    Args:
        openings: token ids.
        temperature: of the sampling.
        max_tokens: of a text, and no more than the context window leaves.
        ends: tokens that end a text.
        key: of the sampling. Torch's random states are left as they were.

    Returns:
        Token ids, with the end token of those that came to one.
    """
    if len({tuple(ids) for ids in openings}) == 1:
        found = _together(lm, openings[0], len(openings), temperature, max_tokens, ends, key)
        if found is not None:
            return found
    return generated(lm, openings, temperature=temperature, max_tokens=max_tokens, ends=ends, key=key)


def generated(
    lm: LanguageModel,
    openings: Sequence[Sequence[int]],
    *,
    temperature: float,
    max_tokens: int,
    ends: Collection[int],
    key: str,
) -> list[list[int]]:
    """As `continued`, by `generate` of transformers: other draws, from the same distribution. For openings that differ,
    and for models whose cache cannot leave out a row."""
    import torch

    model, pad = lm.model, lm.prompts.tokenizer.eos_token_id
    length = max(map(len, openings))
    empty = [length - len(ids) for ids in openings]
    ids_BT = torch.tensor([[pad] * gap + list(ids) for gap, ids in zip(empty, openings, strict=True)])
    real_BT = torch.tensor([[0] * gap + [1] * (length - gap) for gap in empty])
    generate: Any = model.generate
    with torch.random.fork_rng(), evaluating(model), torch.no_grad():
        torch.manual_seed(_seed(key))
        out_BT = generate(
            input_ids=ids_BT.to(lm.device),
            attention_mask=real_BT.to(lm.device),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=_room(lm, length, max_tokens),
            pad_token_id=pad,
            eos_token_id=sorted(ends),
        )
    return [_up_to_its_end(row, ends) for row in out_BT[:, length:].tolist()]


def _together(
    lm: LanguageModel,
    opening: Sequence[int],
    count: int,
    temperature: float,
    max_tokens: int,
    ends: Collection[int],
    key: str,
) -> list[list[int]] | None:
    """Texts behind one opening; None where the model's cache is not one whose rows can be repeated and left out."""
    import torch
    from transformers import DynamicCache

    model: Any = lm.model
    found: list[list[int]] = [[] for _ in range(count)]
    chance = torch.Generator(lm.device).manual_seed(_seed(key))
    with evaluating(lm.model), torch.no_grad():
        out = model(input_ids=torch.tensor([list(opening)], device=lm.device), use_cache=True)
        cache = getattr(out, "past_key_values", None)
        if not isinstance(cache, DynamicCache):
            return None
        cache.batch_repeat_interleave(count)
        logits_BV = out.logits[:, -1].expand(count, -1)
        going = list(range(count))
        for left in reversed(range(_room(lm, len(opening), max_tokens))):
            token_B1 = torch.multinomial((logits_BV.float() / temperature).softmax(-1), 1, generator=chance)
            tokens = token_B1[:, 0].tolist()
            for text, token in zip(going, tokens, strict=True):
                found[text].append(token)
            places = [place for place, token in enumerate(tokens) if token not in ends]
            if not places or not left:
                break
            if len(places) < len(going):
                kept_B = torch.tensor(places, device=lm.device)
                cache.batch_select_indices(kept_B)
                token_B1, going = token_B1[kept_B], [going[place] for place in places]
            logits_BV = model(input_ids=token_B1, past_key_values=cache, use_cache=True).logits[:, -1]
    return found


def _room(lm: LanguageModel, opening: int, wanted: int) -> int:
    return max(1, min(wanted, lm.context_window - opening))


def _up_to_its_end(ids: Sequence[int], ends: Collection[int]) -> list[int]:
    place = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[: place + 1])


def _seed(key: str) -> int:
    return random.Random(key).getrandbits(62)
