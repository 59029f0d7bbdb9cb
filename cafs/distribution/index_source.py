"""Where an index that a lock names can be had: what the builders of trees see of it."""

from abc import abstractmethod
from pathlib import Path
from typing import Protocol

from cafs.errors import CafsError
from cafs.fetch.interfaces import Patience
from cafs.model.digest import Digest


class IndexSource(Protocol):
    """Gives index files by their digest.

    Concurrency: any number of tasks.
    """

    @abstractmethod
    async def get(self, digest: Digest, patience: Patience) -> Path | None:
        """A file with these bytes, which were hashed just now; None where nobody has them.

        Why nobody has them has been logged. The file may be changed or gone by the time that it is
        read: who reads it hashes what is read.

        Cancellation: what has been fetched stays.
        """

    @abstractmethod
    def wrong(self, digest: Digest, error: CafsError) -> None:
        """Take note that an index, as ``get`` gave it, is of no use: what was wrong with it."""
