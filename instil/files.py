"""Durable files: every write is atomic, every fingerprint is made here, and what is read back later can be checked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from instil.errors import InputError, RunFailed

CHECKSUM: Final = "checksum"


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed over `path`, on failure removed."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.chmod(0o666 & ~_umask())
        draft.replace(target)
        _sync_folder(target.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: str | Path) -> Iterator[None]:
    """Hold a folder while this process works there. The system lets go of it with the process, however that ends.

    The folder is made where it is missing, and removed again if nothing is in it at the end. Where the file system
    knows no locks, nobody is kept out.

    Raises:
        InputError: another process holds it; or it is no folder.
    """
    home = Path(folder)
    made = not home.exists()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError("the out folder is a file", file=home, field="--out") from None
    handle = os.open(home, os.O_RDONLY)
    try:
        if not _locked(handle):
            raise InputError(
                "another process is at work in the folder",
                file=home,
                field="--out",
                expected="to wait until it is done",
            )
        yield
    finally:
        os.close(handle)
        if made and home.is_dir() and not any(home.iterdir()):
            home.rmdir()


def _locked(handle: int) -> bool:
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Not every system, and not every network's file system, has such locks.
        return True
    return True


def is_draft(path: Path) -> bool:
    """Whether this is what a writer works on before it is done: it counts for nothing."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def sweep(folder: str | Path) -> None:
    """Remove the drafts that killed writers left in a folder and below. Nobody else may be writing there."""
    for path in sorted(Path(folder).rglob(".*.tmp")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def claim(draft: Path, target: Path) -> bool:
    """Let the folder `draft` appear as `target`, whole and synced; False when a folder with files already stands there.

    Renaming onto a folder that holds anything fails on every system, so of several writers exactly one gets the name.
    """
    for file in draft.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
    _sync_folder(draft)
    try:
        draft.rename(target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    _sync_folder(target.parent)
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    with atomic(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Atomic, indented, keys in the order given; a NaN is refused since no other JSON reader takes one."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def fingerprint(parts: Iterable[bytes | str]) -> str:
    """First 16 hex digits of the SHA-256 over length-prefixed parts, so that ("ab", "c") differs from ("a", "bc")."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


def fingerprint_file(path: str | Path) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def write_sealed(path: str | Path, value: Mapping[str, Any]) -> None:
    """`write_json` of an object, with a last entry `checksum` by which `read_sealed` finds a changed byte."""
    plain = {name: entry for name, entry in value.items() if name != CHECKSUM}
    write_json(path, {**plain, CHECKSUM: _mark(plain)})


def read_sealed(path: str | Path) -> dict[str, Any]:
    """What `write_sealed` wrote, without the checksum. An object that has none, as one written by hand, is taken as is.

    Raises:
        InputError: it is no JSON object, or not as it was written.
        FileNotFoundError: there is no such file.
    """
    try:
        value = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as fault:
        raise InputError("not JSON", file=path, found=str(fault)) from fault
    if not isinstance(value, dict):
        raise InputError("not a JSON object", file=path, found=type(value).__name__)
    held = value.pop(CHECKSUM, None)
    if held is not None and held != _mark(value):
        raise InputError("the file is not as it was written", file=path, field=CHECKSUM, found=str(held)[:80])
    return value


def seal(path: str | Path, files: Iterable[Path], **more: Any) -> None:
    """Write a sealed object with the fingerprints of some files, which `broken` compares, and `more`.

    It is to be written last: what it names was whole before.
    """
    home = Path(path).parent
    marks = {os.path.relpath(file, home): fingerprint_file(file) for file in files}
    write_sealed(path, {**more, "files": marks})


def broken(path: str | Path) -> Path | None:
    """The first file that is missing or not as `seal` saw it, or the seal itself; None when everything is as it was."""
    home = Path(path).parent
    try:
        marks = read_sealed(path)["files"]
        return next((home / name for name, mark in marks.items() if fingerprint_file(home / name) != mark), None)
    except FileNotFoundError as missing:
        return Path(missing.filename)
    except (InputError, KeyError, AttributeError):
        return Path(path)


def refuse_broken(path: str | Path, remove: str | Path) -> None:
    """Raises `RunFailed` when a file is not as `seal` saw it, naming it and what to remove so that it is made again."""
    found = broken(path)
    if found is not None:
        raise RunFailed(f"{found} is missing or not as it was written; remove {remove} and resume")


def _mark(plain: Mapping[str, Any]) -> str:
    return fingerprint([json.dumps(plain, ensure_ascii=False)])
