"""The errno table is total, and tells reasons apart."""

import errno
from collections.abc import Iterator

import pytest

from cafs import errors
from cafs.errors import CafsError
from cafs.fuse.errnos import errno_of


def classes(root: type[CafsError]) -> Iterator[type[CafsError]]:
    for each in root.__subclasses__():
        yield each
        yield from classes(each)


@pytest.mark.parametrize("kind", list(classes(CafsError)), ids=lambda kind: kind.__name__)
def test_every_error_has_an_errno(kind: type[CafsError]) -> None:
    # The kernel takes 1 to 511 as a reply, and nothing else.
    assert 0 < errno_of(kind) < 512


def test_the_root_itself_is_never_raised_and_has_no_errno() -> None:
    with pytest.raises(LookupError, match="CafsError"):
        errno_of(CafsError)


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (errors.NotFoundError, errno.ENOENT),
        (errors.CredentialsError, errno.EACCES),
        (errors.PolicyError, errno.EACCES),
        (errors.DeadlineError, errno.ETIMEDOUT),
        (errors.CrowdedError, errno.ETIMEDOUT),
        (errors.UnreachableError, errno.EHOSTUNREACH),
        (errors.OfflineError, errno.ENONET),
        (errors.DigestMismatchError, errno.EBADMSG),
        (errors.SizeMismatchError, errno.EBADMSG),
        (errors.MalformedError, errno.EBADMSG),
        (errors.SourceChangedError, errno.ESTALE),
        (errors.StorageFullError, errno.ENOSPC),
        (errors.BudgetError, errno.EDQUOT),
        (errors.UnsupportedError, errno.EOPNOTSUPP),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_reason_has_its_errno(kind: type[CafsError], number: int) -> None:
    assert errno_of(kind) == number
