"""Durable files: whole or not at all, and no scraps."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.files import atomic, claim, fingerprint, fingerprint_file, is_draft, sweep, write_json, write_text
from tests import faults


def test_a_file_is_written_whole_with_the_usual_rights(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "a.txt", "naïve")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "naïve".encode()
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "deep" / "a.txt").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("moment", [1, 2])
def test_a_write_that_fails_leaves_the_old_file_or_the_new_one(moment: int, tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with faults.striking(moment, faults.disk_full), pytest.raises(OSError) as failed:
        write_text(tmp_path / "a.txt", "new")
    assert failed.value.errno == errno.ENOSPC
    assert (tmp_path / "a.txt").read_text() == ("old" if moment == 1 else "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_too_large_for_the_disk_leaves_nothing(tmp_path: Path) -> None:
    with faults.files_no_larger_than(1000), pytest.raises(OSError):
        write_text(tmp_path / "a.txt", "x" * 5000)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "a.txt") as draft:
        draft.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_json_that_others_cannot_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_of_many_writers_one_gets_the_name(tmp_path: Path) -> None:
    won = []

    def write(number: int) -> None:
        draft = tmp_path / f".draft{number}.tmp"
        draft.mkdir()
        (draft / "who").write_text(str(number))
        if claim(draft, tmp_path / "taken"):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert (tmp_path / "taken" / "who").read_text() == str(won[0])


def test_drafts_are_swept_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("a.txt", ".hidden", "b.tmp", "deep/c.txt")]
    scraps = [tmp_path / name for name in (".a.txt.x1.tmp", "deep/.c.txt.x2.tmp", ".model.x3.tmp/weights")]
    for path in (*kept, *scraps):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert is_draft(scraps[0]) and not any(map(is_draft, kept))
    sweep(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    sweep(tmp_path / "nowhere")


@given(st.lists(st.text()), st.lists(st.text()))
def test_fingerprints_tell_sequences_apart(first: list[str], second: list[str]) -> None:
    assert (fingerprint(first) == fingerprint(second)) == (first == second)


def test_a_files_fingerprint_is_that_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (tmp_path / "b").write_bytes(b"x" * 3_000_000)
    (tmp_path / "c").write_bytes(b"x" * 3_000_001)
    assert fingerprint_file(tmp_path / "a") == fingerprint_file(tmp_path / "b") != fingerprint_file(tmp_path / "c")
