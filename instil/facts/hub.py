"""Rows of a Hugging Face data set, through the `datasets` library: by name, or from a folder on disk.

`hf:NAME[@CONFIG][:SPLIT]`; a data set of one split needs no split named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from instil.errors import InputError
from instil.facts.columns import clean_row
from instil.facts.faults import Fault
from instil.facts.layouts.fields import Record


def hub_records(name: str, spec: str) -> Iterator[Record | Fault]:
    """The rows, as a stream where the data set allows it.

    Raises:
        InputError: the data set cannot be loaded, or has several splits and none is named.
    """
    data = _one_split(name, *split_spec(spec))
    number = 0
    rows = iter(data)
    while True:
        try:
            row = next(rows, None)
        except Exception as error:
            raise InputError("the data set breaks off", file=name, line=number + 1, found=_brief(error)) from error
        if row is None:
            break
        number += 1
        yield number, clean_row(dict(row))
    if not number:
        raise InputError("the data set is empty", file=name, expected="at least one fact")


def split_spec(spec: str) -> tuple[str, str | None, str | None]:
    """(name, config, split) of `NAME[@CONFIG][:SPLIT]`. A folder that exists is a name as it is."""
    if Path(spec).exists():
        return spec, None, None
    rest, colon, split = spec.rpartition(":")
    if not colon or "/" in split:
        rest, split = spec, ""
    name, _, config = rest.partition("@") if not Path(rest).exists() else (rest, "", "")
    return name, config or None, split or None


def _one_split(name: str, path: str, config: str | None, split: str | None) -> Iterable[Mapping[str, Any]]:
    loaded = _load(name, path, config)
    if not isinstance(loaded, dict):
        return loaded
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        raise InputError(
            "no split is named" if split is None else "no such split",
            file=name,
            found=split,
            expected=" or ".join(f"{name.removesuffix(f':{split}')}:{each}" for each in loaded),
        )
    return loaded[split]


def _load(name: str, path: str, config: str | None) -> Any:
    """A data set or a dictionary of its splits; a folder written by `save_to_disk` is told by its marks."""
    import datasets

    folder = Path(path)
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            return datasets.load_from_disk(path)
        return datasets.load_dataset(path, config, streaming=True)
    except Exception as error:
        what = "the folder holds no data set" if folder.is_dir() else "no such file, and no data set of that name"
        raise InputError(
            what, file=name, found=_brief(error), expected="a file, or hf:NAME[@CONFIG][:SPLIT]"
        ) from error


def _brief(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:160]}"
