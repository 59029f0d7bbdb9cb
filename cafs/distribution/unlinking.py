"""Taking names away from a tree that is being written, and counting links right."""

from msgspec.structs import replace

from cafs.model.member import Entry, Kind
from cafs.store.trees.tree_writing import TreeWriter


def unlink(writer: TreeWriter, parent: int, name: bytes) -> None:
    """Take a name away, with all that lies below it. The entries stay, without a name.

    Raises:
        KeyError: there is no such name.
    """
    number = writer.child(parent, name)
    if number is None:
        raise KeyError(name)
    writer.unbind(parent, name)
    pending = [number]
    while pending:
        at = pending.pop()
        entry = writer.entry(at)
        if entry.kind is Kind.DIRECTORY:
            pending.extend(child for _, child in writer.children(at))
            continue
        file = file_behind(entry, at)
        entry = writer.entry(file)
        if entry.links > 1:
            writer.replace(file, replace(entry, links=entry.links - 1))


def add_link(writer: TreeWriter, parent: int, name: bytes, file: int) -> int:
    """Give a file one more name; returns the number of the new entry."""
    entry = writer.entry(file)
    writer.replace(file, replace(entry, links=entry.links + 1))
    return writer.add(
        Entry(name=name, parent=parent, kind=Kind.HARD_LINK, mode=entry.mode, link=file)
    )


def file_behind(entry: Entry, number: int) -> int:
    """The number of the entry itself, when this one may be a hard link."""
    return entry.link if entry.kind is Kind.HARD_LINK else number
