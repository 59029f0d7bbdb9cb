"""Errnos: one total table over the error families, so that programs can tell failures apart."""

import errno
from typing import Final

from cafs import errors

FAMILIES: Final[dict[type[errors.CafsError], int]] = {
    errors.NotFoundError: errno.ENOENT,
    errors.AccessError: errno.EACCES,
    errors.SourceError: errno.EHOSTUNREACH,
    errors.DeadlineError: errno.ETIMEDOUT,
    errors.CrowdedError: errno.ETIMEDOUT,
    errors.CancelledError: errno.ECANCELED,
    errors.OfflineError: errno.ENONET,
    errors.ContentError: errno.EBADMSG,
    errors.SourceChangedError: errno.ESTALE,
    errors.StorageError: errno.EIO,
    errors.StorageFullError: errno.ENOSPC,
    errors.BudgetError: errno.EDQUOT,
    errors.UnsupportedError: errno.EOPNOTSUPP,
    errors.UsageError: errno.EINVAL,
    errors.MountError: errno.EIO,
}
"""Errno by family; a class takes that of its nearest ancestor in the table."""
LISTING: Final = "readdir"
"""The operation whose errnos differ in one: C libraries take ENOENT for the end of a listing
(glibc's sysdeps/unix/sysv/linux/readdir.c), and a ref that is missing would look empty."""


def errno_of(kind: type[errors.CafsError], operation: str = "") -> int:
    """The errno of an error class, as an operation tells it.

    Raises:
        LookupError: a family without a row; a test walks all classes, so none has this.
    """
    for ancestor in kind.__mro__:
        if ancestor in FAMILIES:
            number = FAMILIES[ancestor]
            return errno.ENXIO if (number, operation) == (errno.ENOENT, LISTING) else number
    raise LookupError(kind.__name__)
