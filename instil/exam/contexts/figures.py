"""Scored contexts, and how far what is predicted as written is predicted in other contexts too."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from instil.errors import InputError
from instil.exam.contexts.building import AS_WRITTEN, REWORDED, LeftOut
from instil.exam.statistics import DEFAULT, Bootstrap, Figure, mean, ratio, share
from instil.files import atomic
from instil.probe.contexts import Context, ContextScore

if TYPE_CHECKING:
    import pandas
    import pyarrow

GROUPS: Final[Mapping[str, str]] = {
    "as_written": "as written in the document",
    "elsewhere": "the same sentence in other formats and orders, or alone",
    "reworded": "in other words: paraphrases and completions",
    "other": "all contexts but as written",
}

LEFT_OUT: Final = b"instil.left_out"
COLUMNS: Final = (
    *("context_id", "item", "document", "kind", "fact", "tokens", "cut", "log_probability", "probability", "per_token"),
    *("greedy_right", "before", "after"),
)


def group_of(kind: str) -> Literal["as_written", "elsewhere", "reworded"]:
    """Which of the groups a kind of context belongs to; all but the first are `other` as well."""
    if kind == AS_WRITTEN:
        return "as_written"
    return "reworded" if kind in REWORDED else "elsewhere"


@dataclass(frozen=True, slots=True)
class ItemScores:
    """A fact in the contexts of one group: means over each kind's contexts, then over the kinds.

    Attributes:
        probability: of the fact's tokens.
        log_per_token: the log-probability by the number of tokens, in nats.
        greedy_right: share of the contexts behind which greedy decoding writes them.
        contexts: how many.
    """

    probability: float
    log_per_token: float
    greedy_right: float
    contexts: int

    @staticmethod
    def of(scores: Iterable[ContextScore]) -> ItemScores | None:
        """None where there is no score."""
        kinds: dict[str, list[ContextScore]] = defaultdict(list)
        for score in scores:
            kinds[score.context.kind].append(score)
        if not kinds:
            return None

        def averaged(value: Callable[[ContextScore], float]) -> float:
            return fmean(fmean(map(value, each)) for each in kinds.values())

        return ItemScores(
            averaged(lambda score: score.probability),
            averaged(lambda score: score.log_probability / score.tokens),
            averaged(lambda score: float(score.greedy_right)),
            sum(map(len, kinds.values())),
        )


class ContextScores(Sequence[ContextScore]):
    """One row a context, in the order of the facts; figures by fact, by kind and in all.

    Attributes:
        left_out: (fact, document or context, reason), of building and of scoring.
    """

    def __init__(self, rows: Iterable[ContextScore], left_out: Iterable[LeftOut] = ()) -> None:
        self._rows = tuple(rows)
        self.left_out = tuple(left_out)

    @overload
    def __getitem__(self, index: int) -> ContextScore: ...
    @overload
    def __getitem__(self, index: slice) -> ContextScores: ...
    def __getitem__(self, index: int | slice) -> ContextScore | ContextScores:
        return ContextScores(self._rows[index], self.left_out) if isinstance(index, slice) else self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[ContextScore]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ContextScores) and (self._rows, self.left_out) == (other._rows, other.left_out)

    def __hash__(self) -> int:
        return hash(self._rows)

    def __repr__(self) -> str:
        return f"ContextScores({len(self)} contexts of {len(self.by_item())} facts)"

    def where(self, keep: Callable[[ContextScore], bool]) -> ContextScores:
        """Only these contexts, in all figures."""
        return ContextScores(filter(keep, self._rows), self.left_out)

    @property
    def shortened(self) -> int:
        """Contexts that lost tokens at their beginning, since they were longer than the window."""
        return sum(score.cut > 0 for score in self)

    def reasons(self) -> dict[str, int]:
        """How many were left out for each reason, most first."""
        return dict(Counter(reason for _, reason in self.left_out).most_common())

    def by_item(self) -> Mapping[str, Mapping[str, ItemScores]]:
        """For each fact's id, the groups (`GROUPS`) that it has contexts of, and its means in them."""
        return self._by_item

    @cached_property
    def _by_item(self) -> dict[str, dict[str, ItemScores]]:
        grouped: dict[str, dict[str, list[ContextScore]]] = {}
        for score in self:
            groups = grouped.setdefault(score.context.item, {name: [] for name in GROUPS})
            group = group_of(score.context.kind)
            groups[group].append(score)
            if group != "as_written":
                groups["other"].append(score)
        return {
            item: {name: found for name, scores in groups.items() if (found := ItemScores.of(scores)) is not None}
            for item, groups in grouped.items()
        }

    @cached_property
    def _documents(self) -> dict[str, str]:
        """The document of each fact; of several, the first."""
        found: dict[str, str] = {}
        for score in self:
            found.setdefault(score.context.item, score.context.document)
        return found

    def figures(self, group: str = "other", how: Bootstrap = DEFAULT) -> dict[str, Figure]:
        """What the model gives in one group of contexts, over facts; intervals resample documents.

        `probability`: the mean probability of a fact's tokens. `per_token`: the geometric mean of the probability of
        one token, over tokens, contexts and facts. `greedy_right`: the share of contexts behind which greedy decoding
        writes the fact. Each is averaged over the contexts of a kind, over a fact's kinds, then over facts.

        Raises:
            InputError: there is no such group.
        """
        if group not in GROUPS:
            raise InputError("no such group of contexts", field="group", found=group, expected=", ".join(GROUPS))
        found = {item: groups[group] for item, groups in self.by_item().items() if group in groups}
        return _figures(found, self._documents, how)

    def carry_over(self, group: str = "other", how: Bootstrap = DEFAULT) -> dict[str, Figure]:
        """Of what is predicted as written, how much is predicted in a group of other contexts too.

        `carry_over`: of the facts that greedy decoding writes as the document tells them, the mean share of other
        contexts in which it does so as well. `probability_carried`: over all facts that have both, the sum of the
        smaller of the two probabilities by the sum of those as written: also defined where nothing is written greedily.
        """
        both = {
            item: (groups["as_written"], groups[group])
            for item, groups in self.by_item().items()
            if "as_written" in groups and group in groups
        }
        predicted = {item: other for item, (written, other) in both.items() if written.greedy_right >= 0.5}
        carried = share(
            [other.greedy_right for other in predicted.values()], [self._documents[item] for item in predicted], how
        )
        if not predicted:
            carried = replace(carried, reason="no fact is predicted as written")
        mass = ratio(
            [min(written.probability, other.probability) for written, other in both.values()],
            [written.probability for written, _ in both.values()],
            [self._documents[item] for item in both],
            how,
        )
        return {"carry_over": carried, "probability_carried": mass}

    def by_kind(self, how: Bootstrap = DEFAULT) -> dict[str, dict[str, Figure]]:
        """The figures of each kind of context by itself, in the order in which kinds first come."""
        found = {}
        for kind in dict.fromkeys(score.context.kind for score in self):
            own: dict[str, list[ContextScore]] = defaultdict(list)
            for score in self:
                if score.context.kind == kind:
                    own[score.context.item].append(score)
            means = {item: averaged for item, scores in own.items() if (averaged := ItemScores.of(scores)) is not None}
            found[kind] = _figures(means, self._documents, how)
        return found

    def headline(self, how: Bootstrap = DEFAULT) -> dict[str, Figure]:
        """Every figure of the groups that there are contexts of, by names such as `probability_as_written`."""
        there = {name for groups in self.by_item().values() for name in groups}
        found: dict[str, Figure] = {}
        for group in GROUPS:
            if group not in there and group not in ("as_written", "other"):
                continue
            found |= {f"{name}_{group}": figure for name, figure in self.figures(group, how).items()}
        for group in ("other", "elsewhere", "reworded"):
            if group in there:
                found |= {_carried(name, group): figure for name, figure in self.carry_over(group, how).items()}
        return found

    def summary(self, how: Bootstrap = DEFAULT) -> dict[str, Any]:
        """Plain values: counts, the headline, every kind by itself, and what was left out."""
        return {
            "counts": {
                "facts": len(self.by_item()),
                "documents": len(set(self._documents.values())),
                "contexts": len(self),
                "shortened": self.shortened,
                "left_out": len(self.left_out),
            },
            "headline": {name: figure.to_dict() for name, figure in self.headline(how).items()},
            "by_kind": {
                kind: {"group": group_of(kind)} | {name: figure.to_dict() for name, figure in figures.items()}
                for kind, figures in self.by_kind(how).items()
            },
            "left_out": {
                "reasons": self.reasons(),
                "all": [f"{what}: {reason}" for what, reason in self.left_out],
            },
        }

    def to_pandas(self, by: Literal["context", "item"] = "context") -> pandas.DataFrame:
        """One row a context, with the columns of `contexts.parquet`; or one row a fact: `item`, `document`, and for
        each group `probability_GROUP`, `per_token_GROUP`, `greedy_right_GROUP` and `contexts_GROUP`.

        Raises:
            InputError: another `by`.
        """
        if by == "context":
            return self.to_table().to_pandas()
        if by != "item":
            raise InputError("no such table", field="by", found=repr(by), expected="context or item")
        import pandas

        rows = [
            {"item": item, "document": self._documents[item]}
            | {f"{name}_{group}": value for group in GROUPS for name, value in _plain(groups.get(group)).items()}
            for item, groups in self.by_item().items()
        ]
        return pandas.DataFrame(rows)

    def to_table(self) -> pyarrow.Table:
        import pyarrow

        left_out = json.dumps(self.left_out, ensure_ascii=False).encode()
        return pyarrow.Table.from_pylist(list(map(_row, self)), schema=_schema({LEFT_OUT: left_out}))

    def save(self, path: str | Path) -> None:
        """Write Parquet, atomically, what was left out with it."""
        import pyarrow.parquet

        with atomic(path) as draft:
            pyarrow.parquet.write_table(self.to_table(), draft, compression="zstd", write_page_checksum=True)

    @staticmethod
    def load(path: str | Path) -> ContextScores:
        """Read what `save` or `instil probe --contexts` wrote.

        Raises:
            InputError: the file is missing, damaged, or not one of scored contexts.
        """
        import pyarrow
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(path, page_checksum_verification=True)
            left_out = json.loads((table.schema.metadata or {})[LEFT_OUT])
            if not table.schema.equals(_schema({})):
                raise KeyError(", ".join(table.column_names))
            rows = [_score(row) for row in table.to_pylist()]
        except FileNotFoundError:
            raise InputError("no such file", file=path) from None
        except (pyarrow.ArrowException, OSError, KeyError, ValueError, TypeError) as fault:
            raise InputError("not a file of scored contexts", file=path, found=str(fault)[:120]) from fault
        return ContextScores(rows, [(what, reason) for what, reason in left_out])


# -------------------------------------------------------------------- private


def _figures(found: Mapping[str, ItemScores], documents: Mapping[str, str], how: Bootstrap) -> dict[str, Figure]:
    clusters = [documents[item] for item in found]
    logs = mean([one.log_per_token for one in found.values()], clusters, how)
    value, low, high = (None if part is None else math.exp(part) for part in (logs.value, logs.low, logs.high))
    return {
        "probability": share([one.probability for one in found.values()], clusters, how),
        "per_token": replace(logs, value=value, low=low, high=high),
        "greedy_right": share([one.greedy_right for one in found.values()], clusters, how),
    }


def _carried(name: str, group: str) -> str:
    return name if group == "other" else f"{name}_{group}"


def _plain(scores: ItemScores | None) -> dict[str, float | int | None]:
    if scores is None:
        return {"probability": None, "per_token": None, "greedy_right": None, "contexts": 0}
    return {
        "probability": scores.probability,
        "per_token": math.exp(scores.log_per_token),
        "greedy_right": scores.greedy_right,
        "contexts": scores.contexts,
    }


def _row(score: ContextScore) -> dict[str, Any]:
    context = score.context
    values = (
        *(context.id, context.item, context.document, context.kind, context.fact, score.tokens, score.cut),
        *(score.log_probability, score.probability, score.per_token, score.greedy_right),
        *(context.before, context.after),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _score(row: Mapping[str, Any]) -> ContextScore:
    context = Context(
        *(row[name] for name in ("context_id", "item", "document", "kind", "before", "fact", "after")),
    )
    return ContextScore(context, row["tokens"], row["cut"], row["log_probability"], row["greedy_right"])


def _schema(metadata: Mapping[bytes, bytes]) -> pyarrow.Schema:
    import pyarrow

    types = {
        "tokens": pyarrow.int32(),
        "cut": pyarrow.int32(),
        "log_probability": pyarrow.float64(),
        "probability": pyarrow.float64(),
        "per_token": pyarrow.float64(),
        "greedy_right": pyarrow.bool_(),
    }
    return pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in COLUMNS], metadata=dict(metadata))
