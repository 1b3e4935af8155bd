"""Settings of what is read from a dataset."""

from dataclasses import dataclass

from pad_jax.errors import UserError
from pad_jax.registry import SECTIONS
from pad_jax.settings import Config, setting


@dataclass(frozen=True)
class DataSettings:
    path: str = setting("", "folder of the raw files; empty: $PAD_JAX_DATA/<folder>, else data/<folder>")
    reader: str = setting("", "which reader reads it; empty: the one of the dataset's name")
    time: tuple[str | int | float, ...] = setting(
        (), "(t_valid, t_test), a split by time, as numbers or ISO 8601; empty: leave-one-out", "P"
    )
    min_events: int = setting(5, "users with fewer events are not part of a prepared dataset", "P", least=3)
    keep: int = setting(23, "latest events of a user", "P", least=3)
    length: int = setting(20, "L, events that the encoder sees", "C", least=2)
    buckets: int = setting(10, "frequency buckets of about equal numbers of training events", "P", least=1)

    def check(self, config: Config) -> None:
        if len(self.time) not in (0, 2):
            raise UserError(f"config.data.time must be (t_valid, t_test) or empty, not {self.time}")


SECTIONS.register("data", DataSettings)
