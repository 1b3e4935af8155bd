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
    min_events: int = setting(5, "users with fewer events have no targets, see `whole`", "P", least=3, below=2**31)
    keep: int = setting(23, "latest events of a user that are used; 0: all", "P", least=0, below=2**31)
    whole: bool = setting(
        False,
        "users below `min_events` train without targets, events before the latest `keep` are left out of lists; "
        "False: neither is part of the dataset",
        "P",
    )
    holdout: bool = setting(
        True,
        "validation and test events stay out of training; False: every event trains, each phase for just its `epochs`, "
        "and there are no figures, see the job refit",
    )
    length: int = setting(
        20, "L, events that the encoder sees; 0: 20 or 50, chosen from the data", "C", least=0, below=4097
    )
    windows: str = setting(
        "latest",
        "of a user's training events: the latest L + 1 are a window, or as many windows as hold all of them",
        "C",
        choices=("latest", "all"),
    )
    buckets: int = setting(10, "frequency buckets of about equal numbers of training events", "P", least=1, below=1001)

    def check(self, config: Config) -> None:
        if len(self.time) not in (0, 2):
            raise UserError(f"config.data.time must be (t_valid, t_test) or empty, not {self.time}")
        for name, least in (("keep", 3), ("length", 2)):
            if 0 < getattr(self, name) < least:
                raise UserError(f"config.data.{name} must be 0 or at least {least}, not {getattr(self, name)}")


SECTIONS.register("data", DataSettings)
