"""Has libFuzzer play a parser: ``python -m tests.fuzz.driver NAME [LIBFUZZER ARGUMENTS]``.

``scripts/fuzz`` calls it. The arguments are those of libFuzzer: directories of inputs, or files, to
run just these.
"""

import sys
from random import Random
from typing import Final

import atheris

from tests.fuzz.fuzzing import PARSERS, target

DIGITS: Final = b"0123456789"
TEXTUAL: Final = ("tar", "contents")
"""Whose numbers are text."""


def main() -> None:
    """Play the target of the first argument; does not return."""
    name = sys.argv.pop(1)
    if name not in PARSERS:
        raise SystemExit(f"driver: {name} is none of {', '.join(PARSERS)}")
    with atheris.instrument_imports(
        include=["cafs.codec", "cafs.store.trees.index_import", "cafs.store.trees.tree_importing"]
    ):
        played = target(name)
    mutator = {"custom_mutator": mutated} if name in TEXTUAL else {}
    # To merge, libFuzzer starts itself again, by a shell.
    again = f"{sys.executable} -m tests.fuzz.driver {name}"
    arguments = [again, *sys.argv[1:], f"-max_len={played.MOST}"]
    atheris.Setup(arguments, played.one, **mutator)
    atheris.Fuzz()


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """A change of an input: libFuzzer's own, or of one of its digits, which are few among bytes."""
    dice = Random(seed)
    digits = [at for at, byte in enumerate(data) if byte in DIGITS]
    if not digits or dice.randrange(3):
        changed: bytes = atheris.Mutate(data, most)
        return changed
    at = dice.choice(digits)
    return data[:at] + bytes([dice.choice(DIGITS)]) + data[at + 1 :]


if __name__ == "__main__":
    main()
