"""Settings of the text encoder and its table."""

from dataclasses import dataclass

from pad_jax.registry import SECTIONS
from pad_jax.settings import setting


@dataclass(frozen=True)
class TextSettings:
    encoder: str = setting("all-MiniLM-L6-v2", "name, local directory or hub id of a Hugging Face encoder")
    revision: str = setting("", "hub revision; empty: the newest")
    table: str = setting("", "text table to read; empty: runs/<dataset>/text-<encoder>-<pooling>.safetensors")
    adapters: tuple[str, ...] = setting(
        (), "LoRA adapters (directories or hub ids), merged into the encoder in this order"
    )
    bidirectional: bool = setting(False, "every token sees all others, as LLM2Vec does with Llama, Mistral or Qwen")
    precision: str = setting("float32", "of the encoder", choices=("float32", "bfloat16"))
    pooling: str = setting(
        "mean",
        "from tokens to a vector; mean_text leaves special tokens and prompt out [C]",
        choices=("mean", "mean_text", "cls", "last"),
    )
    normalize: bool = setting(True, "rows of length 1", "O")
    prompt: str = setting("", "put before every title")
    max_length: int = setting(512, "longer titles are cut", "C LLM2Vec", unit="tokens", least=1)
    batch: int = setting(128, "titles encoded at once", least=1, below=2**20)
    keep_in: str = setting("float32", "of the table, on disk and on the device", choices=("float32", "float16"))
    transform: str = setting(
        "none", "applied to the table before training", choices="transform", paper="standardize", best="principal"
    )
    components: int = setting(
        0, "directions that principal and whiten keep; 0: `model.width`, and whiten all", "O", least=0, below=2**16
    )
    exponent: float = setting(
        1.0,
        "of the deviation that whiten divides each direction by; 1: unit covariance",
        "O",
        least=0,
        below=5,
    )


SECTIONS.register("text", TextSettings)
