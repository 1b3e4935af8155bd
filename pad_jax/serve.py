"""`python -m pad_jax.serve MODEL_OR_WORKDIR ..`: trained models over HTTP, and a page to explore them.

Without the data of a training, a model knows the histories of users only where they were saved with it.
"""

import argparse
import sys
import typing
from collections.abc import Sequence
from pathlib import Path

from pad_jax import boundary, limits
from pad_jax.run import cache_compilations
from pad_jax.service import ServeSettings, fields, settings_from
from pad_jax.service.models import sources


def main(argv: Sequence[str]) -> int:
    """Runs the command; an exit code as in `boundary`."""
    parser = argparse.ArgumentParser(prog="python -m pad_jax.serve", description=__doc__)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="a workdir, or a folder of Model.save")
    kinds = typing.get_type_hints(ServeSettings)
    for field in fields():
        about = f"{field.metadata['spec'].about} (default {field.default})"
        kind, default = kinds[field.name], field.default
        if kind is bool:
            parser.add_argument(f"--{field.name}", action=argparse.BooleanOptionalAction, default=default, help=about)
        elif kind in (int, float, str):
            parser.add_argument(f"--{field.name}", type=kind, default=default, help=about)
        else:
            parser.add_argument(f"--{field.name}", nargs="*", default=default, help=about)
    given = parser.parse_args(argv)

    def work() -> None:
        settings = settings_from({f.name: _plain(getattr(given, f.name)) for f in fields()})
        cache_compilations()
        from pad_jax.service.app import run_until_stopped

        run_until_stopped(sources([*given.models, *map(Path, settings.beside)]), settings)

    return boundary.run(work)


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


if __name__ == "__main__":
    limits.open_streams()
    if refused := limits.refusal():
        print(f"error: {refused}", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(sys.argv[1:]))
