"""Exit codes: one total table over the error families.

====  ================================================================
code  means
====  ================================================================
0     done
1     a bug in cafs
2     wrong usage or settings
3     no such name, tag, member
4     digest, size or format wrong; or the source changed
5     no source reachable, deadline passed, cancelled, or offline and not local
6     not allowed: credentials, or the settings' policy
7     disk full, budget spent, or the store cannot be used
8     cannot mount or unmount
9     known, but not supported
130   interrupted; 143 and 129: told to end by SIGTERM, SIGHUP
====  ================================================================
"""

from typing import Final

from cafs import errors

BUG: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

FAMILIES: Final[dict[type[errors.CafsError], int]] = {
    errors.NotFoundError: 3,
    errors.AccessError: 6,
    errors.SourceError: 5,
    errors.CrowdedError: 5,
    errors.CancelledError: 5,
    errors.OfflineError: 5,
    errors.ContentError: 4,
    errors.SourceChangedError: 4,
    errors.StorageError: 7,
    errors.BudgetError: 7,
    errors.UnsupportedError: 9,
    errors.UsageError: 2,
    errors.MountError: 8,
}
"""Exit code by family; a class takes that of its nearest ancestor in the table."""


def exit_code(kind: type[errors.CafsError]) -> int:
    """The exit code of an error class.

    Raises:
        LookupError: a family without a row; a test walks all classes, so none has this.
    """
    for ancestor in kind.__mro__:
        if ancestor in FAMILIES:
            return FAMILIES[ancestor]
    raise LookupError(kind.__name__)


EPILOG: Final = (
    "\b\nExit codes: 0 done, 1 bug, 2 usage or settings, 3 not found, 4 wrong content,\n"
    "5 unreachable, 6 not allowed, 7 disk or budget, 8 mount, 9 unsupported."
)
