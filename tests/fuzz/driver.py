"""Has libFuzzer play a parser: ``python -m tests.fuzz.driver NAME [LIBFUZZER ARGUMENTS]``.

``scripts/fuzz`` calls it. The arguments are those of libFuzzer: directories of inputs, or files, to
run just these.
"""

import sys

import atheris

from tests.fuzz.fuzzing import PARSERS, target


def main() -> None:
    """Play the target of the first argument; does not return."""
    name = sys.argv.pop(1)
    if name not in PARSERS:
        raise SystemExit(f"driver: {name} is none of {', '.join(PARSERS)}")
    with atheris.instrument_imports(
        include=["cafs.codec", "cafs.store.index_import", "cafs.store.tree_importing"]
    ):
        played = target(name)
    atheris.Setup([*sys.argv, f"-max_len={played.MOST}"], played.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
