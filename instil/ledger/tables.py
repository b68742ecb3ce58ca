"""What each table of the ledger holds: one line a column, with its type and whether it may be empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from instil.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


class Column(NamedTuple):
    """A column: its type ("text", "whole", "number", "yes/no", or a list as "texts", "numbers", "yes/nos"), and use."""

    kind: str
    about: str
    nullable: bool = False


def _may_be_empty(kind: str, about: str) -> Column:
    return Column(kind, about, nullable=True)


TABLES: Final[Mapping[str, Mapping[str, Column]]] = {
    "runs": {
        "run_id": Column("text", "the run; its rows are appended as it goes on, and the last one counts"),
        "method": Column("text", "the method that taught"),
        "model_name": Column("text", "the starting model"),
        "model_fingerprint": Column("text", "its weights, configuration and tokenizer"),
        "facts_fingerprint": _may_be_empty("text", "the facts"),
        "exam_fingerprint": _may_be_empty("text", "the frozen exam"),
        "config_json": Column("text", "every setting, as JSON"),
        "seed": _may_be_empty("whole", "the seed"),
        "version": Column("text", "the version of Instil"),
        "commit": _may_be_empty("text", "the commit of the code, where it is known"),
        "hardware_json": _may_be_empty("text", "the machine, as JSON"),
        "started": Column("text", "ISO 8601"),
        "finished": _may_be_empty("text", "ISO 8601"),
        "status": Column("text", "running, done or failed"),
        "summary_json": _may_be_empty("text", "the content of summary.json"),
    },
    "states": {
        "state_id": Column("text", "a state of the model"),
        "run_id": Column("text", "the run that made it"),
        "parent_id": _may_be_empty("text", "the state it was trained from, or returned to"),
        "label": Column("text", "before, a stage's name, after, or undo"),
        "order": Column("whole", "its place in the run"),
        "fingerprint": _may_be_empty("text", "of the weights"),
        "path": _may_be_empty("text", "where the weights are kept, seen from the ledger's folder"),
    },
    "answers": {
        "run_id": Column("text", "the run"),
        "state_id": Column("text", "the state of the model that answered"),
        "purpose": Column("text", "exam, or deciding (a probe by the method)"),
        "part": Column("text", "the part of the exam"),
        "question_id": Column("text", "unique in its exam"),
        "fact_id": _may_be_empty("text", "the fact that it asks for; none for general text"),
        "subject": _may_be_empty("text", "what intervals keep together"),
        "relation": _may_be_empty("text", "the kind of fact"),
        "question": _may_be_empty("text", "the wording"),
        "answers": _may_be_empty("texts", "what counts as right"),
        "exemplars_fingerprint": _may_be_empty("text", "the worked questions in the prompts"),
        "category": _may_be_empty("text", "mastery of this wording"),
        "p_greedy": _may_be_empty("number", "share of exemplar sets with a right greedy answer"),
        "p_sampled": _may_be_empty("number", "mean probability that one sample is right"),
        "p_any": _may_be_empty("number", "probability that the sampled protocol sees a right answer"),
        "p_prior": _may_be_empty("number", "probability of the answer when the subject is withheld"),
        "gold_in_prompt": _may_be_empty("yes/no", "an exemplar has the same answer"),
        "greedy_answer": _may_be_empty("text", "the answer given most often"),
        "known": _may_be_empty("yes/no", "at least half of the exemplar sets gave a right greedy answer"),
        "start_category": _may_be_empty("text", "mastery of the fact before teaching"),
        "taught": _may_be_empty("yes/no", "the fact was to be taught"),
        "greedy_right_by_set": _may_be_empty("yes/nos", "right or not, an exemplar set each"),
        "p_by_set": _may_be_empty("numbers", "probability that one sample is right, an exemplar set each"),
        "greedy_answer_by_set": _may_be_empty("texts", "the greedy answer, an exemplar set each"),
        "gold_in_prompt_by_set": _may_be_empty("yes/nos", "an exemplar of the set has the same answer"),
        "p_own": _may_be_empty("number", "probability that one sample is the wrong answer given most often"),
        "forced_tokens": _may_be_empty("texts", "the likeliest token at each place of the right answer"),
        "forced_right": _may_be_empty("yes/nos", "whether it is the answer's token"),
        "nll": _may_be_empty("number", "general text: summed negative log-likelihood, in nats"),
        "tokens": _may_be_empty("whole", "general text: tokens scored"),
    },
    "stages": {
        "run_id": Column("text", "the run"),
        "stage": Column("text", "its name"),
        "epoch": _may_be_empty("number", "epochs done, fractions included"),
        "step": Column("whole", "optimiser steps done"),
        "tokens": _may_be_empty("whole", "tokens trained on so far"),
        "flops": _may_be_empty("number", "floating-point operations so far"),
        "seconds": _may_be_empty("number", "since the stage began"),
        "loss": _may_be_empty("number", "mean training loss a target token, in nats"),
        "learning_rate": _may_be_empty("number", "at this step"),
        "development_accuracy": _may_be_empty("number", "share of right greedy answers on development facts"),
        "facts": _may_be_empty("whole", "facts and documents trained on"),
        "move_norm": _may_be_empty("number", "sharpness-aware steps: how far the weights were moved, as it came out"),
        "move_intended": _may_be_empty("number", "the same, as it was meant"),
        "move_cosine": _may_be_empty("number", "of the angle between the two moves"),
    },
    "verdicts": {
        "run_id": Column("text", "the run"),
        "fact_id": Column("text", "the fact"),
        "subject": _may_be_empty("text", "what intervals keep together"),
        "relation": _may_be_empty("text", "the kind of fact"),
        "question": Column("text", "as worded"),
        "answer": Column("text", "the answer taught, or the first right one"),
        "role": Column("text", "target, held_back, or earlier (taught by an earlier lesson of this ledger)"),
        "verdict": Column("text", "one of the seven"),
        "category_before": Column("text", "mastery before"),
        "category_after": Column("text", "mastery after"),
        "p_greedy_before": Column("number", "share of exemplar sets with a right greedy answer, before"),
        "p_greedy_after": Column("number", "the same, after"),
        "p_sampled_before": Column("number", "mean probability that one sample is right, before"),
        "p_sampled_after": Column("number", "the same, after"),
        "answer_before": Column("text", "the answer given most often, before"),
        "answer_after": Column("text", "the same, after"),
        "reworded_known_before": _may_be_empty("number", "share of other wordings in which it was known"),
        "reworded_known_after": _may_be_empty("number", "the same, after"),
        "evidence": Column("text", "why this verdict, in words"),
    },
    "costs": {
        "run_id": Column("text", "the run"),
        "purpose": Column("text", "training, deciding, teacher or exam"),
        "flops": Column("number", "floating-point operations"),
        "tokens": Column("whole", "tokens"),
        "seconds": Column("number", "wall clock"),
    },
    "left_out": {
        "run_id": Column("text", "the run"),
        "what": Column("text", "what was left out"),
        "reason": Column("text", "why"),
    },
}


def column_names(table: str) -> tuple[str, ...]:
    return tuple(_columns(table))


def _columns(table: str) -> Mapping[str, Column]:
    if table not in TABLES:
        raise InputError("the ledger has no such table", found=repr(table), expected=", ".join(TABLES))
    return TABLES[table]


@cache
def schema(table: str) -> pa.Schema:
    """The Arrow schema of a table.

    Raises:
        InputError: there is no such table.
    """
    import pyarrow as pa

    types = {"text": pa.string(), "whole": pa.int64(), "number": pa.float64(), "yes/no": pa.bool_()}

    def arrow_type(kind: str) -> pa.DataType:
        return types[kind] if kind in types else pa.list_(types[kind.removesuffix("s")])

    return pa.schema(
        [pa.field(name, arrow_type(col.kind), nullable=col.nullable) for name, col in _columns(table).items()]
    )


def to_arrow(table: str, rows: Sequence[Mapping[str, Any]] | pa.Table) -> pa.Table:
    """Rows in the schema of `table`; columns that may be empty and are absent are filled with nulls.

    Raises:
        InputError: a column is unknown, missing, empty where it may not be, or of another type.
    """
    import pyarrow as pa

    if isinstance(rows, pa.Table):
        return conform(table, rows)
    wanted = schema(table)
    for row in rows:
        if unknown := set(row) - set(wanted.names):
            raise InputError(
                f"table {table} has no such column", field=sorted(unknown)[0], expected=", ".join(wanted.names)
            )
    return _checked(
        table, pa.table([_array(table, field, [row.get(field.name) for row in rows]) for field in wanted], wanted)
    )


def conform(table: str, found: pa.Table) -> pa.Table:
    """An Arrow table, perhaps an earlier version's, in today's schema of `table`. Raises `InputError` as `to_arrow`."""
    import pyarrow as pa

    wanted = schema(table)
    if unknown := set(found.column_names) - set(wanted.names):
        raise InputError(f"table {table} has no such column", field=sorted(unknown)[0])
    columns = []
    for field in wanted:
        if field.name not in found.column_names:
            columns.append(pa.chunked_array([pa.nulls(len(found), field.type)]))
            continue
        try:
            columns.append(found[field.name].cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise _wrong_type(table, field, error) from error
    return _checked(table, pa.table(columns, wanted))


def _array(table: str, field: pa.Field, values: list[Any]) -> pa.Array:
    import pyarrow as pa

    try:
        # Arrow would cut 1.5 to 1 without a word.
        if pa.types.is_integer(field.type) and any(value is not None and value != int(value) for value in values):
            raise pa.ArrowInvalid("a fraction")
        return pa.array(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, TypeError, OverflowError) as error:
        raise _wrong_type(table, field, error) from error


def _checked(table: str, rows: pa.Table) -> pa.Table:
    for field in rows.schema:
        if not field.nullable and rows[field.name].null_count:
            raise InputError(f"table {table} has a row without a value", field=field.name, expected=str(field.type))
    return rows


def _wrong_type(table: str, field: pa.Field, error: Exception) -> InputError:
    return InputError(
        f"table {table} cannot hold a value",
        field=field.name,
        found=str(error).splitlines()[0][:200],
        expected=str(field.type),
    )
