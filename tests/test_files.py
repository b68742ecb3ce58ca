"""Durable files: whole or not at all, and no scraps."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.errors import InputError, RunFailed
from instil.files import (
    alone_in,
    atomic,
    broken,
    claim,
    fingerprint,
    fingerprint_file,
    is_draft,
    read_sealed,
    refuse_broken,
    seal,
    sweep,
    write_json,
    write_sealed,
    write_text,
)
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


SEALED = {"name": "naïve \u202e", "share": 0.1, "counts": {"1": [1, 2]}, "none": None, "text": "a\nb"}


def test_what_was_sealed_is_read_back_and_by_others_too(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, SEALED)
    assert read_sealed(path) == SEALED
    assert json.loads(path.read_text()) == {**SEALED, "checksum": json.loads(path.read_text())["checksum"]}
    write_sealed(path, {**SEALED, "checksum": "an old one"})
    assert read_sealed(path) == SEALED
    write_json(path, SEALED)
    assert read_sealed(path) == SEALED, "by hand, without a checksum"


def test_any_changed_byte_of_a_sealed_file_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, SEALED)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in (1, 32):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            try:
                found = read_sealed(path)
            except InputError as fault:
                assert str(path) in str(fault)
            else:  # The name of the checksum was hit, or a space between values.
                assert {name: found.get(name) for name in SEALED} == SEALED, place
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a\.json"):
            read_sealed(path)


def test_a_seal_finds_what_was_changed_or_taken_away(tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "deep" / "two"]
    for file in files:
        write_text(file, file.name)
    seal(tmp_path / "seal.json", files, more=3)
    assert broken(tmp_path / "seal.json") is None and read_sealed(tmp_path / "seal.json")["more"] == 3
    for file in files:
        file.write_text("twu")
        assert broken(tmp_path / "seal.json") == file
        with pytest.raises(RunFailed, match=rf"{file.name} is missing or not as .*; remove here and resume"):
            refuse_broken(tmp_path / "seal.json", "here")
        file.unlink()
        assert broken(tmp_path / "seal.json") == file
        write_text(file, file.name)
    (tmp_path / "seal.json").write_text("{")
    assert broken(tmp_path / "seal.json") == tmp_path / "seal.json"
    (tmp_path / "seal.json").unlink()
    assert broken(tmp_path / "seal.json") == tmp_path / "seal.json"


def test_a_folder_is_one_process_s_at_a_time(tmp_path: Path) -> None:
    with alone_in(tmp_path / "run"):
        with pytest.raises(InputError, match="another process is at work"), alone_in(tmp_path / "run"):
            pass
        (tmp_path / "run" / "a.txt").touch()
    with alone_in(tmp_path / "run"), alone_in(tmp_path / "other"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "an empty folder that was not there before is gone"
    with pytest.raises(InputError, match="is a file"), alone_in(tmp_path / "run" / "a.txt"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="without such locks nobody is kept out")
def test_a_killed_process_holds_no_folder(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from instil.files import alone_in\n"
        "with alone_in(sys.argv[1]): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"in\n"
        with pytest.raises(InputError, match="another process"), alone_in(tmp_path):
            pass
        other.kill()
    with alone_in(tmp_path):
        pass
