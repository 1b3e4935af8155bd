"""Settings of the text encoder, its table and its tuning."""

from dataclasses import dataclass, replace
from typing import Any

from pad_jax.errors import UserError
from pad_jax.registry import REGISTRIES, SECTIONS, one_of
from pad_jax.settings import Config, setting

LEXICAL = "tfidf"  # the encoder that is none: words and pairs of them
_FILES = (".safetensors", ".npy")
_MOST = 2**16  # components


@dataclass(frozen=True)
class TextSettings:
    encoder: str = setting(
        "all-MiniLM-L6-v2", "name, local directory or hub id of a Hugging Face encoder; tfidf: words, without torch"
    )
    revision: str = setting("", "hub revision; empty: the newest")
    table: str = setting("", "text table to read; empty: runs/<dataset>/text-<encoder>-<pooling>[-raw].safetensors")
    adapters: tuple[str, ...] = setting(
        (), "LoRA adapters (directories or hub ids), merged into the encoder in this order"
    )
    bidirectional: bool = setting(
        False, "every token sees all others, as LLM2Vec does with Llama, Mistral, Qwen or Gemma 3"
    )
    precision: str = setting("float32", "of the encoder", choices=("float32", "bfloat16"))
    pooling: str = setting(
        "mean",
        "from tokens to a vector; mean_text leaves special tokens and prompt out [C]",
        choices=("mean", "mean_text", "cls", "last"),
    )
    normalize: bool = setting(True, "rows of length 1", "O; the official code takes rows as they are", official=False)
    prompt: str = setting("", "put before every title")
    max_length: int = setting(512, "longer titles are cut", "C LLM2Vec", unit="tokens", least=1)
    batch: int = setting(128, "titles encoded at once", least=1, below=2**20)
    keep_in: str = setting("float32", "of the table, on disk and on the device", choices=("float32", "float16"))
    transform: str = setting(
        "none", "applied to the table before training", choices="transform", paper="standardize", best="principal"
    )
    components: int = setting(
        0, "directions that principal and whiten keep; 0: `model.width`, and whiten all", "O", least=0, below=_MOST
    )
    exponent: float = setting(
        1.0,
        "of the deviation that whiten divides each direction by; 1: unit covariance",
        "O",
        least=0,
        below=5,
    )
    more: tuple[str, ...] = setting(
        (), "tables beside the first, TABLE:TRANSFORM:COMPONENTS each: tfidf, an encoder or a file; the rest as above"
    )

    def check(self, config: Config) -> None:
        """Raises UserError for what `more` cannot be."""
        beside(config)


def beside(config: Config) -> list[Config]:
    """What `config` is with each table of `text.more` as its only one.

    What fits one encoder alone (revision, adapters, bidirectional) is of the first.
    """
    found: list[Config] = []
    seen = {(config.text.table or config.text.encoder, config.text.transform, config.text.components)}
    transforms = REGISTRIES["transform"]
    for one in config.text.more:
        table, transform, components = f"{one}::".split(":")[:3]
        wrong = f"config.text.more={one!r} must be TABLE:TRANSFORM:COMPONENTS, the last two optional"
        if not table or one.count(":") > 2:
            raise UserError(wrong)
        if transform and transform not in transforms:
            raise UserError(f"{wrong}: the transform {transform!r} is unknown: {one_of(transform, transforms)}")
        if components and not (components.isdecimal() and len(components) < 6 and 0 < int(components) < _MOST):
            raise UserError(f"{wrong}: {components!r} is no number of components, which is from 1 to {_MOST - 1}")
        own: dict[str, Any] = {"table": table} if table.endswith(_FILES) else {"table": "", "encoder": table}
        own |= {"transform": transform} if transform else {}
        own |= {"components": int(components)} if components else {}
        text = replace(config.text, more=(), revision="", adapters=(), bidirectional=False, **own)
        which = table, text.transform, text.components
        if which in seen:
            raise UserError(
                f"config.text.more={one!r} is there twice: the first table is config.text.encoder or .table"
            )
        seen.add(which)
        found.append(replace(config, **{"text": text}))
    return found


SECTIONS.register("text", TextSettings)


@dataclass(frozen=True)
class TuneSettings:
    """The job `tune`."""

    kind: str = setting(
        "views",
        "what is drawn together: two views of a text (SCFT), texts of items that follow each other; or what is told of "
        "a user's titles: the classes of the items (P2Rec)",
        "C of LLMEmb",
        choices=("views", "neighbours", "preference"),
    )
    targets: str = setting(
        "hard",
        "of views and neighbours: one positive among the batch and vectors of length 1, or LLMEmb's soft targets and "
        "vectors as they are",
        "O",
        choices=("hard", "soft"),
        official="soft",
    )
    temperature: float = setting(
        0.0, "fixed with hard targets, where training begins with soft ones; 0: 0.1 and 3", "C of LLMEmb", least=0
    )
    separator: str = setting("; ", "between the parts of a text, of which a view has some", "O")
    drop: float = setting(
        0.4, "share of the parts that a view lacks, one at least, never the first", "C of LLMEmb", least=0, below=1
    )
    redraw: bool = setting(True, "new views in each epoch; False: the same ones", "O", official=False)
    output: str = setting("", "folder of the adapter; empty: runs/<dataset>/adapter-<encoder>-<kind>")
    rank: int = setting(8, "of the LoRA matrices", "C of LLMEmb", least=1, below=2**16)
    alpha: float = setting(32.0, "of LoRA: what it adds is multiplied by alpha / rank", "C of LLMEmb", above=0)
    dropout: float = setting(0.1, "of what the LoRA matrices read", "C of LLMEmb", least=0, below=1)
    modules: tuple[str, ...] = setting(
        (), "last names of the linear layers that get one; empty: those of attention and MLP"
    )
    learning_rate: float = setting(2e-4, "of Adam at the first step; falls linearly to 0", "C of LLMEmb", above=0)
    epochs: int = setting(3, "times through the texts, or the users", "O", unit="epochs", least=1, below=10**6)
    minutes: float = setting(0.0, "no epoch begins after this much time; 0: no limit", unit="minutes", least=0)
    batch: int = setting(64, "texts, pairs or users a step", "C of LLMEmb", least=2, below=2**20)
    held_out: float = setting(
        0.05, "share of texts (users, for preference) that only the second loss is of; 0: none", "O", least=0, below=1
    )
    classes: str = setting("", "workdir of a run whose phase `pretrain` has ID vectors, for preference; empty: its own")
    clusters: int = setting(64, "classes of items, for preference", "O", least=2, below=2**16)
    history: int = setting(
        256, "a user's titles, newest first, are cut to these and `text.max_length`", "O", unit="tokens", least=1
    )

    def check(self, config: Config) -> None:
        del config
        if not self.separator:
            raise UserError("config.tune.separator must not be empty: a text is split at it")

    @property
    def first_temperature(self) -> float:
        return self.temperature or {"hard": 0.1, "soft": 3.0}[self.targets]


SECTIONS.register("tune", TuneSettings)
