"""Loading and saving checkpoints: safetensors only, no remote code unless asked, precision chosen sensibly."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.errors import InputError
from instil.model.freed import keep_freed_memory
from instil.model.language import LanguageModel
from instil.model.prompts import PromptStyle

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

EMBEDDED = Path(__file__).parent / "embedded"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_DTYPES = {"float32": "float32", "fp32": "float32", "bfloat16": "bfloat16", "bf16": "bfloat16"}
_DTYPES |= {"float16": "float16", "fp16": "float16"}


def load(
    spec: str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    remote_code: bool = False,
    chat_template: str | None = None,
    style: str = "auto",
) -> LanguageModel:
    """Load a causal language model for evaluation.

    Args:
        spec: a folder in Hugging Face layout, a hub id, or "embedded" for the model that comes with the package.
        dtype: "auto", "float32", "bfloat16" or "float16". Auto is bfloat16 on a GPU; on a CPU it is bfloat16 only when
            the weights are stored so and the CPU multiplies bfloat16 matrices itself, float32 otherwise.
        device: "auto" (the first GPU, or that of LOCAL_RANK; else the CPU) or a torch device.
        remote_code: run Python code that comes with the checkpoint.
        chat_template: a Jinja chat template, or the path of one, that replaces the tokenizer's.
        style: "auto" (chat where there is a chat template), "base" or "chat".

    Raises:
        InputError: the folder is missing, has no weights or only pickled ones; a weight is missing from it; the
            tokenizer has no end token or more tokens than the model; an option does not exist.
    """
    import torch
    from transformers import AutoModelForCausalLM

    place = _place(spec, _with_weights)
    config = _config(place, remote_code)
    where = _device(device)
    precision = _dtype(dtype, where, place, config)
    tokenizer = _tokenizer(place, remote_code, chat_template)
    from_pretrained: Any = AutoModelForCausalLM.from_pretrained
    try:
        with _quietly():
            model, loaded = from_pretrained(
                place,
                config=config,
                dtype=getattr(torch, precision),
                use_safetensors=True,
                trust_remote_code=remote_code,
                output_loading_info=True,
            )
    except Exception as fault:  # Libraries below raise OSError, ValueError, RuntimeError and types of their own.
        raise InputError(f"the model cannot be loaded: {_first_line(fault)}", file=str(place)) from fault
    if missing := sorted(loaded["missing_keys"]):
        # Transformers fills what is missing with random numbers and goes on.
        raise InputError("weights are missing from the checkpoint", file=str(place), found=", ".join(missing[:3]))
    if where.type == "cpu":
        keep_freed_memory()
    return _whole(model.to(where), tokenizer, spec, style)


def outline(
    spec: str | Path, *, remote_code: bool = False, chat_template: str | None = None, style: str = "auto"
) -> LanguageModel:
    """The model that `load` gives, without its weights: its prompts, end tokens and context window are the same.

    No weights are read or downloaded, or need be there. What needs them fails: they are on torch's "meta" device.

    Args:
        spec: as for `load`; likewise `remote_code`, `chat_template` and `style`.

    Raises:
        InputError: the folder is missing or no model's; the tokenizer has no end token or more tokens than the model;
            an option does not exist.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    place = _place(spec, _with_config)
    config = _config(place, remote_code)
    tokenizer = _tokenizer(place, remote_code, chat_template)
    from_config: Any = AutoModelForCausalLM.from_config
    try:
        with torch.device("meta"):
            model = from_config(config, trust_remote_code=remote_code)
    except Exception as fault:  # As in `load`.
        raise InputError(f"the model cannot be built: {_first_line(fault)}", file=str(place)) from fault
    with suppress(OSError):  # Where there is none, it follows from the config, as in `from_pretrained`.
        model.generation_config = GenerationConfig.from_pretrained(place)
    return _whole(model, tokenizer, spec, style)


def _whole(model: Any, tokenizer: PreTrainedTokenizerBase, spec: str | Path, style: str) -> LanguageModel:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise InputError(
            "the tokenizer has more tokens than the model",
            file=str(spec),
            found=str(len(tokenizer)),
            expected=str(rows),
        )
    name = str(spec) if not Path(spec).exists() else Path(spec).resolve().name
    return LanguageModel(model.eval(), tokenizer, name, str(spec), PromptStyle.choose(style, tokenizer))


def save(lm: LanguageModel, folder: str | Path, dtype: str | torch.dtype | None = None) -> Path:
    """Write a plain Hugging Face folder (safetensors, tokenizer), atomically: it appears whole or not at all.

    Args:
        folder: replaced when it holds a model already.
        dtype: precision of the saved weights; as held in memory by default.

    Raises:
        InputError: the folder holds something other than a model, or the precision does not exist.
    """
    import torch

    from instil.model.neurons import folded

    lm, target = folded(lm), Path(folder)
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not (target / "config.json").exists())):
        raise InputError("the folder holds something other than a model", file=str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    wanted = getattr(torch, _named(dtype)) if isinstance(dtype, str) else dtype
    if wanted is not None and wanted != lm.dtype:
        lm = lm.at(wanted)
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
    try:
        with _quietly():
            lm.model.save_pretrained(draft)
        lm.tokenizer.save_pretrained(draft)
        draft.chmod(0o755)
        # safetensors writes weights that only their owner can read, whatever the umask says.
        readable = stat.S_IMODE((draft / "config.json").stat().st_mode)
        for weights in draft.glob("*.safetensors"):
            weights.chmod(readable)
        _sync(draft)
        _replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _replace(draft: Path, target: Path) -> None:
    """Put `draft` where `target` is. A folder cannot be renamed over a full one, so the old one steps aside first."""
    if not target.exists():
        draft.rename(target)
        return
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old.", suffix=".tmp"))
    target.rename(old / "model")
    draft.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in (*sorted(item for item in folder.rglob("*") if item.is_file()), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _place(spec: str | Path, checked: Callable[[Path], Path]) -> str | Path:
    """The folder or hub id that `spec` means.

    Raises:
        InputError: a folder that is missing, or that `checked` refuses.
    """
    if spec == "embedded":
        return checked(EMBEDDED)
    path = Path(spec).expanduser()
    if path.exists():
        return checked(path)
    if isinstance(spec, Path) or not _HUB_ID.fullmatch(spec):
        raise InputError("no such model folder", file=str(spec))
    return spec


def _with_config(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError("not a model folder", file=str(folder), expected="a folder with config.json")
    if not (folder / "config.json").exists():
        raise InputError("the model folder has no config.json", file=str(folder))
    return folder


def _with_weights(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError("not a model folder", file=str(folder), expected="a folder with config.json and safetensors")
    names = sorted(path.name for path in folder.iterdir())
    for index in (name for name in names if name.endswith(".safetensors.index.json")):
        _refuse_other_weights(folder / index)
    if any(name.endswith(".safetensors") and not name.startswith("adapter") for name in names):
        return _with_config(folder)
    if "adapter_config.json" in names:
        raise InputError("the folder holds an adapter without its model; merge it first", file=str(folder))
    pickles = [
        name for name in names if name.endswith(_PICKLES) and not name.startswith(("training_args", "optimizer"))
    ]
    if pickles:
        raise InputError(
            "the model folder has pickled weights only, which can run code", file=str(folder), found=pickles[0],
            expected="*.safetensors",
        )  # fmt: skip
    raise InputError("the model folder has no weights", file=str(folder), expected="*.safetensors")


def _refuse_other_weights(index: Path) -> None:
    """An index of weights may name safetensors beside it and nothing else: what it names is opened by its ending."""
    try:
        files = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise InputError("the index of the weights cannot be read", file=str(index)) from fault
    for name in sorted(map(str, files)):
        if not name.endswith(".safetensors") or Path(name).name != name:
            raise InputError(
                "the index of the weights names a file that is not beside it, or may run code", file=str(index),
                found=repr(name)[:80], expected="*.safetensors in the same folder",
            )  # fmt: skip


def _config(place: str | Path, remote_code: bool) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=remote_code)
    except Exception as fault:
        hint = "no such folder, and not found on the hub: " if isinstance(place, str) else ""
        raise InputError(f"{hint}{_first_line(fault)}", file=str(place)) from fault


def _tokenizer(place: str | Path, remote_code: bool, chat_template: str | None) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=remote_code)
    except Exception as fault:
        raise InputError(f"the tokenizer cannot be loaded: {_first_line(fault)}", file=str(place)) from fault
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no end token", file=str(place), field="eos_token")
    if chat_template is not None:
        is_path = "{" not in chat_template
        if is_path and not Path(chat_template).is_file():
            raise InputError("no such chat template", file=chat_template)
        tokenizer.chat_template = Path(chat_template).read_text(encoding="utf-8") if is_path else chat_template
    return tokenizer


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the progress bars of transformers: the terminal belongs to the command."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _device(device: str) -> torch.device:
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        # Of several processes that a launcher started on this machine, each takes a GPU of its own.
        local = os.environ.get("LOCAL_RANK", "")
        return (
            torch.device("cuda", int(local) % torch.cuda.device_count()) if local.isdecimal() else torch.device("cuda")
        )
    if device == "auto":
        return torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as fault:
        raise InputError(f"no such device: {_first_line(fault)}", field="device", found=device) from fault
    return chosen


def _named(dtype: str) -> str:
    if dtype not in _DTYPES:
        raise InputError("unknown precision", field="dtype", found=dtype, expected=", ".join(("auto", *_DTYPES)))
    return _DTYPES[dtype]


def _dtype(dtype: str, device: torch.device, place: str | Path, config: Any) -> str:
    if dtype != "auto":
        return _named(dtype)
    if device.type == "cuda":
        return "bfloat16"
    stored = _stored_dtype(place, config)
    return "bfloat16" if device.type == "cpu" and stored == "bfloat16" and multiplies_bfloat16() else "float32"


def _stored_dtype(place: str | Path, config: Any) -> str:
    """The precision of the stored weights: from the first file's header, which cannot lie, else from the config."""
    files = sorted(place.glob("*.safetensors")) if isinstance(place, Path) else []
    if files:
        try:
            kinds = _kinds(files[0])
        except (ValueError, OSError, KeyError, TypeError, AttributeError) as fault:
            raise InputError("the weights cannot be read: this is no safetensors file", file=str(files[0])) from fault
        return "bfloat16" if kinds == {"BF16"} else "float32"
    return str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")


def _kinds(file: Path) -> set[str]:
    """The precisions in a safetensors file's header. Where a pickle has that, it names a length beyond its own."""
    with file.open("rb") as weights:
        length = int.from_bytes(weights.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError(length)
        header = json.loads(weights.read(length))
    return {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 matrix products; without them bfloat16 is slower than float32."""
    import torch

    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)


def _first_line(fault: BaseException) -> str:
    text = str(fault).strip()
    return text.splitlines()[0].rstrip(".") if text else type(fault).__name__
