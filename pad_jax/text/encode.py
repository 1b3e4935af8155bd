"""Titles to vectors with a Hugging Face encoder, once and offline; PyTorch is imported here and in `packages` alone."""

import contextlib
import hashlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32

from pad_jax.console import Task, progress, say
from pad_jax.data.dataset import Dataset
from pad_jax.data.files import first_line
from pad_jax.errors import UserError
from pad_jax.text.packages import INSTALL, PACKAGED, folder_of
from pad_jax.text.settings import TextSettings
from pad_jax.text.table import TableWriter, check_finite

_SETTINGS = ("bidirectional", "precision", "pooling", "normalize", "prompt", "max_length")
_CHUNK = 10_000  # titles that are tokenized at once


def encode_table(path: Path, dataset: Dataset, config: TextSettings) -> None:
    """Writes the text table of a dataset's titles. A run that is stopped goes on where it was, bit for bit.

    Host memory holds the titles, their tokens and one batch of vectors. Raises UserError as `encode` does, and for a
    vector with NaN or infinity.
    """
    encoder = load_encoder(config)
    texts, number = _distinct(dataset.texts, config)
    tokens = tokenize(encoder, texts, config)
    owners = np.argsort(number, kind="stable")  # items by their text
    begin = np.searchsorted(number[owners], np.arange(len(texts) + 1))
    identity = {
        "batch": config.batch,
        "texts_sha256": hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        "device": encoder.device_name,
        "files": files_of(config),
    }
    dtype = np.dtype(config.keep_in)
    with contextlib.ExitStack() as stack:
        width = next(vectors(encoder, tokens, config))[1].shape[1]  # not every configuration says it
        writer = stack.enter_context(
            TableWriter(path, dataset, width, dtype, encoder.manifest | {"dtype": dtype.name}, identity)
        )
        if writer.done:
            say(f"{path}: goes on after {writer.done * config.batch:,} of {len(texts):,} titles")
        bar = stack.enter_context(progress(f"encode with {config.encoder}", len(texts), every=10.0))
        for index, rows in vectors(encoder, tokens, config, writer.done, bar):
            with np.errstate(over="ignore"):
                rows = rows.astype(dtype)
            check_finite(path, rows, [int(owners[begin[i]]) + 1 for i in index])
            for i, row in zip(index, rows, strict=True):
                for item in owners[begin[i] : begin[i + 1]]:
                    writer.put(int(item) + 1, row)
            writer.batch_done()
        writer.finish()


def encode(titles: Sequence[str], config: TextSettings) -> tuple[Float[np.ndarray, "N E"], dict[str, Any]]:
    """One float32 vector per title, and the manifest that names the encoder.

    Titles are encoded in order of their length, so that little is spent on padding; the order of the result is that
    of `titles`. Raises UserError when torch or the encoder is missing.
    """
    encoder = load_encoder(config)
    texts, number = _distinct(titles, config)
    found: list[np.ndarray] = [np.zeros(0)] * len(texts)
    with progress(f"encode with {config.encoder}", len(texts), every=10.0) as bar:
        for index, rows in vectors(encoder, tokenize(encoder, texts, config), config, 0, bar):
            for i, row in zip(index, rows, strict=True):
                found[i] = row
    return np.stack(found)[number], encoder.manifest


class Encoder(NamedTuple):
    """A loaded encoder, and the manifest that says how its vectors came about."""

    tokenizer: Any
    model: Any
    device: str
    device_name: str
    manifest: dict[str, Any]


class Tokens(NamedTuple):
    """The tokens of n texts one after the other, and which of them `pooling=mean_text` takes."""

    ids: Int32[np.ndarray, " T"]
    starts: Int[np.ndarray, " _"]
    spans: Int[np.ndarray, "n 2"]  # begin and end within the text


def load_encoder(config: TextSettings) -> Encoder:
    """The encoder of `config`, with its adapters merged in. Raises UserError where it cannot be had.

    Weights are read from safetensors alone. `bidirectional` gives a causal model full attention and pads on the left,
    which is LLM2Vec (BehnamGhader et al. 2024) without its training; the adapters bring that. Layers that attend within
    a window do so to both sides. A model with a layer that stays causal is refused.
    """
    torch, transformers = _import()
    source = _source(config.encoder)
    common: dict[str, Any] = {"revision": config.revision or None, "trust_remote_code": False}
    weights = {"dtype": getattr(torch, config.precision), "use_safetensors": True, "output_loading_info": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **common)
        settings = transformers.AutoConfig.from_pretrained(source, **common)
        if config.bidirectional:
            settings.is_causal = False
            tokenizer.padding_side = "left"
        model, found = transformers.AutoModel.from_pretrained(source, config=settings, **common, **weights)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token is None:
            raise ValueError("its tokenizer has no token to pad with")
        missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
        if missing:
            raise ValueError(f"its weights lack {missing[0]} and {len(missing) - 1} more")
    except Exception as error:  # whatever the libraries raise for what they find in a directory
        raise UserError(
            f"config.text.encoder={config.encoder!r} is not an encoder that can be loaded "
            f"({first_line(error)[:300]}): name a local Hugging Face directory or a hub id"
        ) from error
    for adapter in config.adapters:
        model = _merged(model, adapter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    device_name = torch.cuda.get_device_name() if device == "cuda" else device
    manifest = {
        "encoder": config.encoder,
        "revision": config.revision or getattr(model.config, "_commit_hash", None) or "",
        "adapters": list(config.adapters),
        **{name: getattr(config, name) for name in _SETTINGS},
        "dtype": "float32",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    model = model.to(device)  # it comes in inference mode
    if config.bidirectional and not _sees_what_follows(model):
        raise UserError(
            f"config.text.bidirectional: {config.encoder} stays causal with transformers {transformers.__version__}; "
            "use a Llama, Mistral, Qwen or Gemma 3 model and transformers 5.2 or later"
        )
    return Encoder(tokenizer, model, device, device_name, manifest)


def tokenize(encoder: Encoder, texts: Sequence[str], config: TextSettings) -> Tokens:
    """The tokens of every text, cut to `config.max_length` and to what the encoder takes."""
    most = getattr(encoder.model.config, "max_position_embeddings", config.max_length)
    limit = min(config.max_length, most, encoder.tokenizer.model_max_length)  # MPNet counts two positions more
    prompt = len(encoder.tokenizer(config.prompt, add_special_tokens=False)["input_ids"]) if config.prompt else 0
    ids, lengths, spans = [], [], []
    for begin in range(0, len(texts), _CHUNK):
        part = list(texts[begin : begin + _CHUNK])
        found = encoder.tokenizer(part, truncation=True, max_length=limit, return_special_tokens_mask=True)
        rows = [row or [encoder.tokenizer.pad_token_id] for row in found["input_ids"]]
        ids.append(np.concatenate([np.asarray(row, np.int32) for row in rows]))
        lengths += [len(row) for row in rows]
        for special in found["special_tokens_mask"]:
            own = [n for n, flag in enumerate(special) if not flag][prompt:]
            spans.append((own[0], own[-1] + 1) if own else (0, max(len(special), 1)))
    return Tokens(np.concatenate(ids), np.concatenate([[0], np.cumsum(lengths)]), np.array(spans).reshape(-1, 2))


def vectors(
    encoder: Encoder, tokens: Tokens, config: TextSettings, first: int = 0, bar: Task | None = None
) -> Iterator[tuple[Int[np.ndarray, " b"], Float[np.ndarray, "b E"]]]:
    """(which texts, their vectors in float32), a batch at a time, shortest texts first.

    Args:
        encoder: loaded.
        tokens: of all texts.
        config: of the encoder.
        first: number of the first batch, of those before nothing is made.
        bar: shows progress.
    """
    import torch

    order = np.argsort(np.diff(tokens.starts), kind="stable")
    if bar is not None:
        bar.skip(min(first * config.batch, len(order)))
    for begin in range(first * config.batch, len(order), config.batch):
        index = order[begin : begin + config.batch]
        with torch.inference_mode():
            pooled = pooled_states(encoder, tokens, index, config)
            if config.normalize:
                pooled = torch.nn.functional.normalize(pooled, dim=1)
        yield index, pooled.cpu().numpy()
        if bar is not None:
            bar.advance(len(index))


def pooled_states(encoder: Encoder, tokens: Tokens, index: Int[np.ndarray, " b"], config: TextSettings):
    """The pooled states [b, E] of some of the texts, a float32 tensor on the encoder's device, of any length."""
    import torch

    rows = [tokens.ids[tokens.starts[i] : tokens.starts[i + 1]].tolist() for i in index]
    batch = encoder.tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(encoder.device)
    mask = batch["attention_mask"]
    states = encoder.model(**batch).last_hidden_state.float()
    if config.pooling == "mean_text":
        place = mask.cumsum(dim=1) - 1  # of each token within its text
        span = torch.as_tensor(tokens.spans[index], device=mask.device)
        mask = mask * (place >= span[:, :1]) * (place < span[:, 1:])
    return pool(states, mask, "mean" if config.pooling == "mean_text" else config.pooling)


def pool(states, mask, kind: str):
    """One vector per text from token states [B, S, E] and the attention mask [B, S], whichever side is padded.

    `mean` over the tokens, `cls` the first token, `last` the last.
    """
    import torch

    if kind == "mean":
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    position = torch.arange(mask.shape[1], device=mask.device)
    if kind == "cls":
        index = torch.where(mask.bool(), position, mask.shape[1]).amin(dim=1)
    else:
        index = torch.where(mask.bool(), position, -1).amax(dim=1)
    return states[torch.arange(len(states), device=states.device), index]


def available() -> bool:
    """Whether torch and transformers are installed."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def _distinct(titles: Sequence[str], config: TextSettings) -> tuple[list[str], Int[np.ndarray, " N"]]:
    """The different texts to encode, and which of them each title is: equal titles have one and the same vector."""
    number: dict[str, int] = {}
    which = np.array([number.setdefault(title, len(number)) for title in titles], np.int64)
    return [config.prompt + title for title in number], which


def files_of(config: TextSettings) -> list[list[tuple[str, int, int]]]:
    """Names, sizes and times of the files of encoder and adapters, where these are local directories: other weights
    under the same name are others."""
    folders = [Path(source) for source in (_source(config.encoder), *config.adapters)]
    found = [sorted(path for path in folder.glob("*") if path.is_file()) for folder in folders]
    return [[(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files] for files in found]


def _merged(model: Any, adapter: str) -> Any:
    """The model with a LoRA adapter merged into its weights. Raises UserError for one that does not fit."""
    try:
        import peft
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise UserError(f"config.text.adapters need {error.name}: {INSTALL}") from error
    wanted = ["adapter_config.json", "adapter_model.safetensors"]
    try:
        folder = Path(adapter) if Path(adapter).is_dir() else Path(snapshot_download(adapter, allow_patterns=wanted))
    except Exception as error:
        raise UserError(f"config.text.adapters: {adapter} cannot be fetched ({first_line(error)[:200]})") from error
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise UserError(f"config.text.adapters: {adapter} has no {missing[0]}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            merged = peft.PeftModel.from_pretrained(model, str(folder))
            if not any(bool(p.any()) for name, p in merged.named_parameters() if "lora_B" in name):
                raise ValueError("it changes no weight")
            return merged.merge_and_unload()
    except Exception as error:  # whatever the libraries raise for what they find in a directory
        reason = first_line(error)[:200]
        raise UserError(f"config.text.adapters: {adapter} does not fit the encoder ({reason})") from error


def _sees_what_follows(model: Any) -> bool:
    """Whether in every layer, attends it to all or within a window, the state of a first token depends on the second.

    Two texts that differ in the second token go through; before each layer their first tokens are made equal.
    """
    import torch

    layers = getattr(model, "layers", None) or [model]
    seen = []

    def make_equal(_, states: tuple) -> None:
        states[0][1, 0] = states[0][0, 0]

    def compare(_, __, states: Any) -> None:
        first = (states if torch.is_tensor(states) else states[0])[:, 0]
        seen.append(not torch.equal(*first))

    hooks = [layer.register_forward_hook(compare) for layer in layers]
    hooks += [layer.register_forward_pre_hook(make_equal) for layer in layers if layer is not model]
    with torch.inference_mode():
        model(input_ids=torch.tensor([[1, 2], [1, 3]], device=model.device))
    for hook in hooks:
        hook.remove()
    return all(seen)


def _import():
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(
            f"encoding titles needs {error.name}: {INSTALL}, or bring a table with --config.text.table"
        ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("torch").setLevel(logging.ERROR)
    return torch, transformers


def _source(encoder: str) -> str:
    """Where the encoder is loaded from: a folder of installed packages, else the name itself."""
    return str(folder_of(encoder)) if encoder in PACKAGED else encoder
