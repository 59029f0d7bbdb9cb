"""Which calls of a verb need cafs.lock: those that ask what a ref means, and no others.

A lock that a merge has broken says nothing of what is mounted, and nothing of what lies in the
store: who ends a mount or clears up need not settle it first. A verb that needs the lock only
sometimes says when (``options.with_settings``), by what it was called with.
"""

from collections.abc import Sequence


def always(**_values: object) -> bool:
    """Of verbs that fetch, or tell what refs mean."""
    return True


def never(**_values: object) -> bool:
    """Of verbs that are about the store as a whole."""
    return False


def of_refs(*, refs: Sequence[str], **_values: object) -> bool:
    """Of verbs whose words are refs or digests: a digest means the same whatever is locked."""
    from cafs.model.digest import SIZES

    # A ref may have the name of an algorithm.
    return not all(":" in word and word.partition(":")[0] in SIZES for word in refs)
