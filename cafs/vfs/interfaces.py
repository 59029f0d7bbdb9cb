"""What the file system asks of the layers below it, beside the store."""

from abc import abstractmethod
from typing import Protocol

from cafs.distribution.interfaces import OpenTree
from cafs.fetch.interfaces import Content, Patience
from cafs.model.digest import Digest
from cafs.model.ref import Ref
from cafs.model.resolved import Resolved, Shape
from cafs.model.spec import RefSpec


class Refs(Protocol):
    """Opens refs. What a ref means is settled once per mount.

    Concurrency: any number of tasks.
    """

    @abstractmethod
    def shape(self, spec: RefSpec) -> Shape:
        """Whether the ref is a file or a tree, from the ref alone."""

    @abstractmethod
    async def tree(self, spec: RefSpec, patience: Patience) -> OpenTree:
        """The ref's tree; cheap when it is known.

        Raises:
            CafsError: it cannot be resolved, fetched, or read as an archive.

        Cancellation: what has been fetched stays.
        """

    @abstractmethod
    async def file(self, spec: RefSpec, patience: Patience) -> Content:
        """The ref's bytes, with their size; cheap when it is known.

        Raises:
            CafsError: it cannot be resolved.

        Cancellation: what has been fetched stays.
        """

    @abstractmethod
    def peek(self, spec: RefSpec) -> Resolved | None:
        """What the ref means in this mount, when that is known; asks nobody."""

    @abstractmethod
    def error(self, spec: RefSpec) -> str | None:
        """The last failure to resolve or open the ref, one line; None when there was none."""

    @abstractmethod
    async def doubt(self, spec: RefSpec) -> None:
        """What came is not what the ref's digest says: the next mount asks again how long it is.

        Cancellation: all or nothing.
        """


class Digests(Protocol):
    """Opens content by digest: from the store, or from where a ref of the mount says it is.

    Concurrency: any number of tasks.
    """

    @abstractmethod
    async def blob_content(self, digest: Digest, patience: Patience) -> Content:
        """The bytes with that digest.

        Raises:
            NotFoundError: nothing here knows such content.
            CafsError: it cannot be fetched.

        Cancellation: what has been fetched stays.
        """

    @abstractmethod
    async def check(self, digest: Digest, patience: Patience) -> None:
        """Make sure that there is somebody to have the bytes with that digest from; fetches none.

        Raises:
            NotFoundError: nothing here knows such content.
            CafsError: another store cannot be asked.

        Cancellation: as ``blob_content``.
        """

    @abstractmethod
    async def blob_tree(self, digest: Digest, patience: Patience) -> OpenTree:
        """The bytes with that digest, opened as an archive.

        Raises:
            NotFoundError: nothing here knows such content.
            CafsError: it cannot be fetched, or is no archive.

        Cancellation: what has been fetched stays.
        """


class Policy(Protocol):
    """Says which refs may be named by path."""

    @abstractmethod
    def check(self, ref: Ref) -> None:
        """Allow a ref.

        Raises:
            PolicyError: it may not be named by path; the hint says what to do.
        """
