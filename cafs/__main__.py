"""``python -m cafs`` is ``cafs``."""

from cafs.cli.main import main

main()
