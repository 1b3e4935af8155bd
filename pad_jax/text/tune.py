"""Tunes an encoder with LoRA on the texts of a dataset: an adapter folder that `text.adapters` reads. Needs PyTorch.

Draws of an epoch are keyed by seed and epoch, so that nothing but tensors has to be kept of an epoch to go on after it.
"""

import hashlib
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from jaxtyping import Int
from safetensors.numpy import save

from pad_jax import sealed
from pad_jax.console import progress, say
from pad_jax.data.dataset import Dataset
from pad_jax.errors import UserError
from pad_jax.files import check_name, folder_atomically, write_atomically, writing
from pad_jax.sealed import DamagedError
from pad_jax.settings import Config
from pad_jax.text.encode import INSTALL, Encoder, Tokens, files_of, load_encoder, pooled_states, tokenize
from pad_jax.text.examples import Examples, Part, examples

FORMAT = 1  # of `tune.json` and of what is kept of an epoch
CONFIG, WEIGHTS, ABOUT = "adapter_config.json", "adapter_model.safetensors", "tune.json"
#: Linear layers of attention and MLP by their last names: BERT and its like, MPNet, DistilBERT, Llama and its like.
LINEAR = {
    *("query", "key", "value", "dense", "q", "k", "v", "o", "q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
_PLACES = ("output", "minutes", "classes")  # settings of the job that change no weight by themselves
_OF_TEXT = ("encoder", "revision", "adapters", "bidirectional", "precision", "pooling", "prompt", "max_length")


def adapter_path(config: Config) -> Path:
    """Where the adapter of a configuration is."""
    if config.tune.output:
        return Path(config.tune.output)
    name = f"{config.text.encoder}-{config.tune.kind}".strip("/").replace("/", "_")
    return Path("runs") / config.dataset / f"adapter-{name}"


def tune(path: Path, dataset: Dataset, config: Config, classes: Int[np.ndarray, " I"] | None = None) -> None:
    """Makes the adapter folder `path`, unless it is there. A run that is stopped goes on after its last whole epoch,
    bit for bit.

    Args:
        path: of the folder; `<path>.partial` has the last epoch until then.
        dataset: whose texts it is for.
        config: of the run.
        classes: of the items, -1 for those that training never met; for `tune.kind=preference` alone.

    Raises UserError as `load_encoder` and `examples` do, for a folder of other settings, and for a loss that is not
    finite.
    """
    check_name(path, "--config.tune.output")
    identity = _identity(dataset, config, classes)
    partial = path.with_name(path.name + ".partial")
    with writing(path, "set another --config.tune.output"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_name(f".{path.name}.lock")):
            if os.path.lexists(path):
                _check_finished(path, identity)
            else:
                found = examples(dataset, config, classes)
                _write(path, identity, Trainer(config, found).run(partial, identity))
            partial.unlink(missing_ok=True)
    say(f"adapter: {path}; set --config.text.adapters=\"('{path}',)\" and a --config.text.table of its own")


def _identity(dataset: Dataset, config: Config, classes: np.ndarray | None) -> dict[str, Any]:
    """All that an adapter depends on but for versions of libraries, as JSON has it."""
    settings = {n: v for n, v in vars(config.tune).items() if n not in _PLACES} | {"seed": config.seed}
    data = {"dataset": dataset.name, "items": dataset.items, "texts_sha256": dataset.texts_sha256}
    if config.tune.kind != "views":
        data["events_sha256"] = dataset.fingerprint
    if classes is not None:
        data["classes_sha256"] = hashlib.sha256(classes.astype("<i4").tobytes()).hexdigest()
    whole = {"settings": settings, "text": {n: getattr(config.text, n) for n in _OF_TEXT}, "data": data}
    return json.loads(json.dumps(whole))


def _check_finished(path: Path, identity: Mapping[str, Any]) -> None:
    """Raises UserError unless a folder holds the adapter of this identity, whole."""
    cure = "remove it, or set another --config.tune.output"
    if not (path / ABOUT).is_file():
        raise UserError(f"{path} is there already and no adapter of the job `tune`: {cure}")
    about = sealed.read_json(path / ABOUT, FORMAT, cure)
    for section, ours in identity.items():
        theirs = about.get(section, {})
        other = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        if other:
            there, here = (str(side.get(other[0]))[:60] for side in (theirs, ours))
            raise UserError(f"{path} is there already, with {section}.{other[0]} {there} and not {here}: {cure}")
    for name, sha256 in about["sha256_of"].items():
        if hashlib.sha256(sealed.read_bytes(path / name, cure)).hexdigest() != sha256:
            raise DamagedError(path / name, "is damaged: its checksum is of other contents", cure)
    say(f"{path}: finished before")


def _write(path: Path, identity: Mapping[str, Any], trained: "Trainer") -> None:
    """The adapter as PEFT reads it, and how it was made: equal training is equal bytes."""
    import peft

    config = trained.model.peft_config["default"].to_dict() | {
        "base_model_name_or_path": identity["text"]["encoder"],
        "inference_mode": True,
    }
    config = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    weights = {n: _array(w) for n, w in sorted(peft.get_peft_model_state_dict(trained.model).items())}
    files = {
        CONFIG: json.dumps(config, indent=2, sort_keys=True).encode() + b"\n",
        WEIGHTS: save(weights, {"format": "pt"}),
    }
    with folder_atomically(path) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        about = {
            "format": FORMAT,
            **identity,
            "examples": trained.examples.about,
            "steps": trained.steps * (len(trained.history) - 1),
            "epochs": [{n: epoch[n] for n in sorted(epoch) if n != "seconds"} for epoch in trained.history],
            "encoder": trained.encoder.manifest | {"peft": peft.__version__},
            "sha256_of": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
        sealed.write_json(folder / ABOUT, about)


class Trainer:
    """An encoder with LoRA matrices beside its linear layers, what is trained beside these, and Adam.

    `history` has the losses of each epoch; that of epoch 0 before any step.
    """

    def __init__(self, config: Config, examples: Examples):
        peft, torch = _import()
        own = config.tune
        self.config, self.examples, self.text = own, examples, config.text
        if own.kind == "preference":
            self.text = replace(config.text, max_length=min(config.text.max_length, own.history))
        self.seed, self.steps = config.seed, examples.size // own.batch  # of an epoch
        self.encoder = load_encoder(config.text)
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of PEFT's own calls
            torch.manual_seed(config.seed)
            lora = peft.LoraConfig(
                r=own.rank,
                lora_alpha=own.alpha,
                lora_dropout=own.dropout,
                target_modules=_targets(self.encoder, own.modules),
                exclude_modules=".*pooler.*" if hasattr(self.encoder.model, "pooler") else None,
            )
            self.model = peft.get_peft_model(self.encoder.model, lora)
        self.trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad} | self._beside()
        self.optimizer = torch.optim.Adam(list(self.trained.values()), lr=own.learning_rate)
        self.history: list[dict[str, Any]] = []

    def _beside(self) -> dict[str, Any]:
        """The temperature of soft targets; the map from pooled states to classes, which begins as their mean."""
        import torch

        first: dict[str, Any] = {}
        if self.config.kind == "preference":
            with torch.inference_mode():
                width = self.pooled(self.tokens(["a"]), np.zeros(1, np.int64)).shape[1]
            first = {"weight": np.zeros((len(self.examples.mean), width)), "bias": np.log(self.examples.mean)}
        elif self.config.targets == "soft":
            first = {"temperature": self.config.first_temperature}
        device = self.encoder.device
        return {n: torch.nn.Parameter(torch.tensor(v, dtype=torch.float32, device=device)) for n, v in first.items()}

    def tokens(self, texts: Sequence[str]) -> Tokens:
        return tokenize(self.encoder, [self.text.prompt + text for text in texts], self.text)

    def pooled(self, tokens: Tokens, index: Int[np.ndarray, " b"]):
        """The pooled states [b, E] of some texts, with the adapter."""
        return pooled_states(self.encoder._replace(model=self.model), tokens, index, self.text)

    def loss(self, part: Part, tokens: Tokens, index: Int[np.ndarray, " b"]):
        """Of some examples of a part."""
        import torch
        from torch.nn.functional import linear, normalize

        own, target = self.config, torch.as_tensor(part.target[index], device=self.encoder.device)
        if own.kind == "preference":
            logits = linear(self.pooled(tokens, index), self.trained["weight"], self.trained["bias"])
            return divergence(logits, target.float())
        x, y = self.pooled(tokens, np.concatenate([index, index + len(part.target)])).chunk(2)
        if own.targets == "soft":
            return soft_contrast(x, y, self.trained["temperature"])
        first, second = target.T
        return hard_contrast(normalize(x), normalize(y), no_negatives(first, second), own.first_temperature)

    def run(self, partial: Path, identity: Mapping[str, Any]) -> "Trainer":
        """Trains to the end, from what `partial` holds of the same settings, encoder and versions."""
        import torch

        manifest, device, own = self.encoder.manifest, self.encoder.device_name, self.config
        of = sealed.digest([identity, manifest, device, files_of(self.text)])
        say(f"tune: {self.examples.about}; {len(self.examples.held_out.target):,} held out")
        self._restore(partial, of)
        if not self.history:
            self.history = [{"epoch": 0, "seconds": 0.0, **self._held_out()}]
            if len(self.history[0]) > 2:
                say(f"tune: before any step: {_in_words(self.history[0])}")
        with torch.random.fork_rng():
            while (epoch := len(self.history)) <= own.epochs:
                spent = sum(done["seconds"] for done in self.history)
                if own.minutes and spent >= 60 * own.minutes:
                    say(f"tune: {own.minutes:g} minutes are over after epoch {epoch - 1}")
                    break
                started = time.monotonic()
                losses = {"loss": self._epoch(epoch), **self._held_out()}
                if not all(np.isfinite(value) for value in losses.values()):
                    raise UserError(f"tune: {losses} in epoch {epoch} is not finite; lower config.tune.learning_rate")
                self.history.append({"epoch": epoch, "seconds": time.monotonic() - started, **losses})
                self._keep(partial, of)
                seconds, memory = self.history[-1]["seconds"], _peak_memory() / 2**20
                say(f"tune epoch {epoch}: {_in_words(losses)}; {seconds:.1f} s, peak memory {memory:,.0f} MiB")
        return self

    def _epoch(self, epoch: int) -> float:
        """The mean loss of an epoch's steps."""
        import torch

        own, total = self.config, self.steps * self.config.epochs
        random = np.random.default_rng([self.seed, epoch])
        torch.manual_seed(int(random.integers(2**62)))
        part = self.examples.draw(random)
        tokens, losses = self.tokens(part.texts), []
        self.model.train()
        with progress(f"tune epoch {epoch}", self.steps) as bar:
            for step in range(self.steps):
                done = (epoch - 1) * self.steps + step
                for group in self.optimizer.param_groups:
                    group["lr"] = own.learning_rate * (1 - done / total)
                loss = self.loss(part, tokens, np.arange(step * own.batch, (step + 1) * own.batch))
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                losses.append(loss.detach())
                bar.advance(1)
        return float(torch.stack(losses).mean())

    def _held_out(self) -> dict[str, float]:
        """The loss of held-out examples, without dropout; beside a preference's that of the mean shares of training."""
        import torch

        part, batch = self.examples.held_out, self.config.batch
        count = len(part.target)
        if not count:
            return {}
        self.model.train(False)  # without dropout
        tokens, total, seen = self.tokens(part.texts), 0.0, 0
        with torch.no_grad():
            for begin in range(0, count, batch):
                index = np.arange(begin, min(begin + batch, count))
                if len(index) > 1 or self.config.kind == "preference":  # a single pair has no negative
                    total, seen = total + len(index) * float(self.loss(part, tokens, index)), seen + len(index)
            found = {"held_out": total / seen} if seen else {}
            if self.config.kind == "preference":
                mean = torch.as_tensor(np.log(self.examples.mean)).expand(count, -1)
                found["of_the_mean"] = float(divergence(mean, torch.as_tensor(part.target)))
        return found

    def _keep(self, partial: Path, of: str) -> None:
        """All that the next epochs need of the ones before."""
        arrays = {f"parameter {name}": _array(p) for name, p in self.trained.items()}
        for name, p in self.trained.items():
            arrays |= {f"{key} {name}": _array(value) for key, value in self.optimizer.state[p].items()}
        write_atomically(partial, sealed.tensors(arrays, {"format": FORMAT, "of": of, "history": self.history}))

    def _restore(self, partial: Path, of: str) -> None:
        """What `_keep` wrote; nothing where there is nothing, or something else."""
        import torch

        try:
            arrays, about = sealed.read_tensors(partial, FORMAT, "")
        except DamagedError:
            return
        if about.get("of") != of:
            return
        for name, p in self.trained.items():
            own = {key.partition(" ")[0]: torch.tensor(v) for key, v in arrays.items() if key.endswith(f" {name}")}
            p.data.copy_(own.pop("parameter"))
            self.optimizer.state[p] = {key: v if key == "step" else v.to(p.device) for key, v in own.items()}
        self.history = about["history"]
        say(f"tune: goes on after epoch {len(self.history) - 1}")


def hard_contrast(x, y, excluded, temperature: float):
    """InfoNCE of pairs x_i, y_i [B, E] in both directions, mean of the two and over i; `excluded` [B, B] are no
    negatives."""
    logits = (x @ y.T / temperature).masked_fill(excluded, -float("inf"))
    return ((logits.logsumexp(dim=1) + logits.logsumexp(dim=0)) / 2 - logits.diagonal()).mean()


def no_negatives(first, second):
    """[B, B], pairs i and j of whose texts, given as numbers, one is the other's: j is no negative of i."""
    equal = (first[:, None] == first) | (second[:, None] == second) | (first[:, None] == second)
    return equal.fill_diagonal_(False)


def soft_contrast(x, y, temperature):
    """The loss of LLMEmb's SCFT (Liu et al. 2025, released code) of pairs [B, E]: cross entropy of softmax(x y^T / t)
    to Q = softmax(t (x x^T + y y^T) / 2), and of the transposed logits to Q^T, half of each, mean over rows.

    Gradients go through Q and t. The rows of Q^T do not sum to 1, as there. Equal texts share what Q says of them.
    """
    targets = (temperature * (x @ x.T + y @ y.T) / 2).softmax(dim=1)
    logits = x @ y.T / temperature
    rows, columns = targets * logits.log_softmax(dim=1), targets * logits.log_softmax(dim=0)
    return -(rows.sum() + columns.sum()) / 2 / len(x)


def divergence(logits, shares):
    """KL(shares || softmax(logits)), both [B, k], mean over rows."""
    import torch

    return (torch.xlogy(shares, shares) - shares * logits.log_softmax(dim=1)).sum(dim=1).mean()


def _targets(encoder: Encoder, wanted: Sequence[str]) -> list[str]:
    """Last names of the linear layers that are adapted. Raises UserError where there are none of that name."""
    import torch

    layers = [name for name, m in encoder.model.named_modules() if isinstance(m, torch.nn.Linear)]
    there = {name.rpartition(".")[2] for name in layers if "pooler" not in name}
    unknown = [name for name in wanted if name not in there]
    if unknown or not (wanted or there & LINEAR):
        what = f"config.tune.modules has {unknown[0]!r}, and" if unknown else "config.tune.modules has to name some:"
        raise UserError(f"{what} the linear layers of {encoder.manifest['encoder']} are {', '.join(sorted(there))}")
    return sorted(wanted or there & LINEAR)


def _in_words(losses: Mapping[str, Any]) -> str:
    names = {"loss": "loss", "held_out": "held out", "of_the_mean": "mean of training there"}
    return ", ".join(f"{title} {losses[name]:.4f}" for name, title in names.items() if name in losses)


def _peak_memory() -> int:
    """Bytes: of the device, or of the whole process on CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().contiguous().numpy()


def _import():
    try:
        import peft
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(f"the job tune needs {error.name}: {INSTALL}") from error
    return peft, torch
