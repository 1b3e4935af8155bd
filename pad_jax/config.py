"""Every hyper-parameter once: its default, its unit and where it comes from.

Sources: [P] the paper, [C] the official code where the paper is silent, [V] chosen on the validation data of Prime
Pantry because both leave it open, [O] ours. `configs/*.py` start from `config_dict` and name a dataset; `resolve`
turns the parsed result into the frozen `Config` that the rest of the package reads.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ml_collections import ConfigDict

from pad_jax.errors import UserError
from pad_jax.losses.mmd import ESTIMATORS, KERNELS


@dataclass(frozen=True)
class DataConfig:
    path: str = ""  # folder of the raw files; empty: $PAD_JAX_DATA/<folder>, else data/<folder>
    reader: str = ""  # which of pad_jax/data reads it; empty: the one of the dataset's name
    time: tuple[str | int | float, ...] = ()  # (t_valid, t_test): a split by time; empty: leave-one-out [P]
    min_events: int = 5  # [P] users with fewer events are no part of a prepared dataset
    keep: int = 23  # [P] latest events of a user
    length: int = 20  # [C] L, events that the encoder sees
    buckets: int = 10  # [P] frequency buckets of about equal numbers of training events


@dataclass(frozen=True)
class TableConfig:
    """Own data, data/table.py: files (.csv, .tsv, .parquet, .jsonl) and the names of their columns."""

    events: str = ""  # file of events
    catalogue: str = ""  # file of items
    user: str = "user"
    item: str = "item"  # in both files
    time: str = "time"  # numbers or ISO 8601; empty: a user's events stand in order
    rating: str = ""  # empty: every row is an event
    above: float = 3.0  # ratings above this are events
    text: str = "{title}"  # what is encoded of an item: text with columns of the catalogue in braces


@dataclass(frozen=True)
class TextConfig:
    encoder: str = "all-MiniLM-L6-v2"  # name, local directory or hub id of a Hugging Face encoder
    revision: str = ""  # hub revision; empty: the newest
    table: str = ""  # text table to read; empty: runs/<dataset>/text-<encoder>-<pooling>.safetensors
    adapters: tuple[str, ...] = ()  # LoRA adapters (directories or hub ids), merged into the encoder in this order
    bidirectional: bool = False  # every token sees all others, as LLM2Vec does with Llama, Mistral or Qwen
    precision: str = "float32"  # of the encoder: float32 | bfloat16
    pooling: str = "mean"  # mean | mean_text (without special tokens and prompt [C]) | cls | last
    normalize: bool = True  # [O] rows of length 1
    prompt: str = ""  # put before every title
    max_length: int = 512  # tokens of a title; longer ones are cut. [C] LLM2Vec
    batch: int = 128  # titles encoded at once
    keep_in: str = "float32"  # the table, on disk and on the device: float32 | float16
    transform: str = "none"  # none | standardize | principal: applied to the table before training, see text/table.py


@dataclass(frozen=True)
class ModelConfig:
    width: int = 128  # [P] D
    dropout: float = 0.1  # [P]
    blocks: int = 5  # [C] SASRec
    heads: int = 2  # [C]
    ffn: int = 4  # [C] feed-forward width in units of D
    norm: str = "post"  # post [C] | pre
    gru_hidden: int = 128  # RecBole's GRU4Rec, whose attribute names [C] has
    gru_layers: int = 1
    caser_horizontal: int = 2  # [C] filters of each height
    caser_vertical: int = 2  # [C]
    text_tower: str = "mlp"  # mlp [C] | residual
    text_layers: int = 4  # [C] hidden layers of the text MLP after the first
    fusion: str = "concat"  # [P] CAT | add
    user: str = "state"  # state [P] | residual: see models/scorer.py
    logit_scale: str = "none"  # none [P] | sqrt | learned
    log_scale: float = 0.0  # where a learned scale starts
    dtype: str = "float32"  # of matrix products: float32 | bfloat16, see models/scorer.py
    id_std: float = 0.0  # standard deviation of fresh ID rows; 0: Xavier normal [C]


@dataclass(frozen=True)
class GateConfig:
    kind: str = "bucket_emb"  # bucket_emb [P] | bucket [C] | shared: models/gate.py
    start: tuple[float, ...] = (1.0, 0.2, 0.0)  # logits of ID, aligned, text at bucket 0 [C]; gamma2 as in argparse


@dataclass(frozen=True)
class ExpertsConfig:
    use: tuple[str, ...] = ("id", "aligned", "text")  # [P] experts of PAD's phase 3; Fig. 5b leaves some out
    copy_encoder: bool = True  # [C] the aligned expert's encoder starts as the pre-trained one; False: fresh
    id_scale: float = 1.0  # its ID rows start as the pre-trained ones times this
    freeze_carried: bool = False  # phase 3 trains the text expert and the gate alone; [P] trains everything
    supervise: str = "fused"  # phase 3: fused [P] | each, see methods/pad.py


@dataclass(frozen=True)
class AlignmentConfig:
    loss: str = "mmd"  # phase 2: mmd [P] | infonce, Fig. 5a
    anchored: bool = True  # [P] False: without the recommendation loss, Fig. 4
    freeze_ids: bool = False  # True: E_al does not move in phase 2, Fig. 4


@dataclass(frozen=True)
class InfoNCEConfig:
    temperature: float = 0.1  # [C]
    weight: float = 0.01  # [C] in phase 2 of PAD; CTRL has nothing beside it


@dataclass(frozen=True)
class DiscoConfig:
    club: float = 0.2  # alpha of the DisCo paper
    sufficiency: float = 0.2  # beta


@dataclass(frozen=True)
class MmdConfig:
    kernel: str = "gaussian"  # [P]
    scales: tuple[int, ...] = (-3, -2, -1, 0, 1)  # [P] m = 5; powers of two of the mean distance [C]
    estimator: str = "tllib"  # [C]
    weight: float = 0.2  # [P] gamma of Eq. (4)
    group: int = 16  # [P] batch: users whose events make up one sample
    include_padding: bool = False  # [C] True: empty slots take part, as the pair (pad ID row, text of zeros)


@dataclass(frozen=True)
class PhaseConfig:
    epochs: int = 400  # [C] at most
    learning_rate: float = 1e-4
    minutes: float = 0.0  # stop after this much training time; 0: no limit


@dataclass(frozen=True)
class TrainConfig:
    batch: int = 16  # [P] users per step, on all devices together
    patience: int = 10  # [P] epochs without a better validation value
    select: str = "HR@10"  # [C] validation metric of early stopping and of the best checkpoint
    weight_decay: float = 0.1  # [P] AdamW, decoupled
    gate_rate: float = 1.0  # times learning_rate for the frequency gate
    gate_weight_decay: float = 0.01  # [C] torch's default
    steps_per_dispatch: int = 32  # [O] K: batches per call of the device
    adjustment: float = 0.0  # tau: training adds tau * log(count) to logits of text, see methods/base.py; 0: no
    sampled: int = 512  # [O] items drawn per step, loss=sampled_softmax


@dataclass(frozen=True)
class OptimizerConfig:
    tables: str = "dense"  # dense: AdamW on every row of the tables [C] | lazy: on the batch's, training/optimizer.py


@dataclass(frozen=True)
class EvalConfig:
    ks: tuple[int, ...] = (1, 5, 10, 20, 50)  # cut-offs of HR and nDCG; 10 is always among them
    batch: int = 256  # users ranked at once on each device


@dataclass(frozen=True)
class RecommendConfig:
    """The job `recommend`."""

    k: int = 10  # items of a list
    histories: str = ""  # JSON lines {"user", "history"}; empty: all users of the dataset
    catalogue: str = ""  # file of items, some of which training never saw; columns as in `table`
    vectors: str = ""  # own text vectors of that catalogue, .npy or safetensors; empty: they are encoded
    output: str = ""  # .parquet or .jsonl; empty: <workdir>/recommendations.parquet
    exclude_history: bool = True


@dataclass(frozen=True)
class StudyConfig:
    """What the jobs compare, backbones, ablate and analyse run."""

    seeds: tuple[int, ...] = (0, 1, 2)  # [P] three runs
    only: tuple[str, ...] = ()  # names of rows; empty: all


@dataclass(frozen=True)
class Config:
    dataset: str
    job: str = "all"
    method: str = "pad"
    backbone: str = "sasrec"
    loss: str = "bce"  # [P]
    recipe: str = "paper"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    table: TableConfig = field(default_factory=TableConfig)
    text: TextConfig = field(default_factory=TextConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    experts: ExpertsConfig = field(default_factory=ExpertsConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    mmd: MmdConfig = field(default_factory=MmdConfig)
    infonce: InfoNCEConfig = field(default_factory=InfoNCEConfig)
    disco: DiscoConfig = field(default_factory=DiscoConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    pretrain: PhaseConfig = field(default_factory=PhaseConfig)
    align: PhaseConfig = field(default_factory=PhaseConfig)
    finetune: PhaseConfig = field(default_factory=PhaseConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    recommend: RecommendConfig = field(default_factory=RecommendConfig)
    study: StudyConfig = field(default_factory=StudyConfig)


#: A recipe fills every field that the command line leaves alone.
RECIPES: dict[str, dict[str, Any]] = {
    # What the paper states; what it leaves open is chosen by validation HR@10, or ours.
    "paper": {
        "text": {"transform": "standardize"},  # [O]
        "model": {"norm": "pre"},  # [V] post-norm stays with popularity, see the README
        "pretrain": {"learning_rate": 1e-3},  # [V] against 3e-4
        "align": {"learning_rate": 1e-3},  # [O] as phase 1
        "finetune": {"learning_rate": 1e-4},  # [V] against 1e-3
    },
    # What the released code does.
    "official": {
        "gate": {"kind": "bucket", "start": (1.0, -4.0, 0.0)},
        "mmd": {"include_padding": True},
        "train": {"batch": 128, "patience": 20},
        "pretrain": {"learning_rate": 1e-5},
        "align": {"learning_rate": 1e-5},
        "finetune": {"learning_rate": 1e-4},
    },
    # Ours, chosen by validation nDCG@10 on Prime Pantry.
    "best": {
        "loss": "ce",
        "text": {"transform": "principal"},
        "model": {
            "blocks": 2,
            "norm": "pre",
            "dropout": 0.3,
            "text_tower": "residual",
            "fusion": "add",
            "user": "residual",
            "logit_scale": "learned",
            "log_scale": 2.5,
            "id_std": 0.02,
        },
        "experts": {"copy_encoder": False, "id_scale": 0.1, "freeze_carried": True, "supervise": "each"},
        "gate": {"kind": "bucket", "start": (-2.0, 1.0, 0.0)},
        "train": {"batch": 128, "patience": 5, "select": "nDCG@10", "gate_rate": 0.03, "adjustment": 0.2},
        "pretrain": {"learning_rate": 1e-3, "epochs": 30},
        "align": {"learning_rate": 1e-3, "epochs": 30},
        "finetune": {"learning_rate": 1e-3, "epochs": 30},
    },
}

CHOICES = {
    "backbone": ("sasrec", "gru4rec", "caser"),
    "loss": ("bce", "ce", "sampled_softmax"),
    "recipe": tuple(RECIPES),
    "text.pooling": ("mean", "mean_text", "cls", "last"),
    "text.precision": ("float32", "bfloat16"),
    "text.keep_in": ("float32", "float16"),
    "text.transform": ("none", "standardize", "principal"),
    "model.norm": ("post", "pre"),
    "model.text_tower": ("mlp", "residual"),
    "model.fusion": ("concat", "add"),
    "model.user": ("state", "residual"),
    "model.logit_scale": ("none", "sqrt", "learned"),
    "model.dtype": ("float32", "bfloat16"),
    "experts.supervise": ("fused", "each"),
    "alignment.loss": ("mmd", "infonce"),
    "gate.kind": ("bucket", "bucket_emb", "shared"),
    "optimizer.tables": ("dense", "lazy"),
    "mmd.kernel": KERNELS,
    "mmd.estimator": ESTIMATORS,
}


#: The smallest value of a field.
LEAST = {
    "seed": 0,
    "data.min_events": 3,
    "data.keep": 3,
    "data.length": 2,
    "data.buckets": 1,
    "text.batch": 1,
    "text.max_length": 1,
    "model.width": 1,
    "model.id_std": 0,
    "model.blocks": 1,
    "model.heads": 1,
    "model.ffn": 1,
    "model.gru_hidden": 1,
    "model.gru_layers": 1,
    "model.caser_horizontal": 1,
    "model.caser_vertical": 1,
    "model.text_layers": 0,
    "mmd.group": 1,
    "mmd.weight": 0,
    "mmd.scales": -30,
    "infonce.weight": 0,
    "disco.club": 0,
    "disco.sufficiency": 0,
    "train.batch": 1,
    "train.weight_decay": 0,
    "train.gate_rate": 0,
    "train.gate_weight_decay": 0,
    "train.patience": 1,
    "train.steps_per_dispatch": 1,
    "train.adjustment": 0,
    "train.sampled": 1,
    "pretrain.epochs": 1,
    "pretrain.minutes": 0,
    "align.epochs": 1,
    "align.minutes": 0,
    "finetune.epochs": 1,
    "finetune.minutes": 0,
    "eval.ks": 1,
    "eval.batch": 1,
    "study.seeds": 0,
}


def config_dict(dataset: str, job: str, recipes: Mapping[str, Mapping] | None = None, **choices: Any) -> ConfigDict:
    """The configuration of a dataset before parsing. `recipes` are the dataset's own additions to each recipe."""
    values = dataclasses.asdict(Config(dataset, job=job or "all", **choices))
    config = ConfigDict(values)
    config.recipes = ConfigDict(_merge(RECIPES, recipes or {}))
    return config


def resolve(config: ConfigDict, given: Iterable[str] = ()) -> Config:
    """The frozen Config: the recipe fills every field but those in `given` (dotted names set by the command line).

    Raises UserError for a value outside its choices.
    """
    values = config.to_dict()
    recipes = values.pop("recipes")
    recipe = values["recipe"]
    check_choice("recipe", recipe, RECIPES)
    given = set(given)
    for name, value in dotted(recipes[recipe]).items():
        if name not in given:
            _put(values, name, value)
    return _checked(values)


def with_fields(config: Config, changes: Mapping[str, Any]) -> Config:
    """The configuration with other values of some fields, given by dotted names. Raises UserError as `resolve`."""
    values = as_dict(config)
    for name, value in changes.items():
        _put(values, name, value)
    return _checked(values)


def _checked(values: Mapping[str, Any]) -> Config:
    for name, choices in CHOICES.items():
        check_choice(name, dotted(values)[name], choices)
    sections: dict[str, Any] = {f.name: f.type for f in fields(Config) if dataclasses.is_dataclass(f.type)}
    arguments: dict[str, Any] = {k: sections[k](**v) if k in sections else v for k, v in values.items()}
    resolved = Config(**arguments)
    _validate(resolved)
    return resolved


def _validate(config: Config) -> None:
    flat = dotted(as_dict(config))
    for name, least in LEAST.items():
        values = flat[name] if isinstance(flat[name], tuple) else (flat[name],)
        if not all(isinstance(v, int | float) for v in values):
            raise UserError(f"config.{name} must be numbers, not {flat[name]}")
        if not values or min(values) < least:
            raise UserError(f"config.{name} must be at least {least}, not {flat[name]}")
    for name, value in flat.items():
        if name.endswith(("learning_rate", "temperature")) and not value > 0:
            raise UserError(f"config.{name} must be above 0, not {value}")
    if not 0 <= config.model.dropout < 1:
        raise UserError(f"config.model.dropout must be in [0, 1), not {config.model.dropout}")
    if config.backbone == "sasrec" and config.model.width % config.model.heads:
        raise UserError(f"config.model.width={config.model.width} does not divide by heads={config.model.heads}")
    if config.optimizer.tables == "lazy" and config.loss == "ce":
        raise UserError(
            "config.optimizer.tables=lazy updates the rows that a batch looks up, and config.loss=ce looks up all: "
            "set --config.loss=sampled_softmax or bce, or leave the tables dense"
        )
    plain = all(isinstance(cut, str | int | float) for cut in config.data.time)
    if len(config.data.time) not in (0, 2) or not plain:
        raise UserError(f"config.data.time must be (t_valid, t_test) or empty, not {config.data.time}")
    if not all(isinstance(adapter, str) for adapter in config.text.adapters):
        raise UserError(f"config.text.adapters must be names of adapters, not {config.text.adapters}")
    seeds = config.study.seeds
    if not all(isinstance(seed, int) for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"config.study.seeds must be different whole numbers, not {seeds}")
    experts = [expert for expert in ("id", "aligned", "text") if expert in config.experts.use]
    if not experts or list(config.experts.use) != experts:
        raise UserError(f"config.experts.use must be some of id, aligned, text, in this order: {config.experts.use}")
    if len(config.gate.start) != 3:
        raise UserError(f"config.gate.start must have 3 numbers (ID, aligned, text), not {config.gate.start}")
    if 10 not in config.eval.ks or not all(isinstance(k, int) for k in config.eval.ks):
        raise UserError(f"config.eval.ks must be whole numbers, 10 among them, not {config.eval.ks}")
    metrics = [f"{m}@{k}" for m in ("HR", "nDCG") for k in config.eval.ks] + ["MRR"]
    check_choice("train.select", config.train.select, metrics)


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raises UserError with the nearest choice when `value` is none of `choices`."""
    choices = list(choices)
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"config.{name}={value!r} is unknown: one of {', '.join(choices)}{hint}")


def as_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested dictionaries."""
    return dataclasses.asdict(config)


def dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields as dotted names and values."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= dotted(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _merge(first: Mapping, second: Mapping) -> dict:
    merged = dict(first)
    for name, value in second.items():
        merged[name] = _merge(merged.get(name, {}), value) if isinstance(value, Mapping) else value
    return merged


def _put(tree: dict, name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        tree = tree[parent]
    tree[last] = value
