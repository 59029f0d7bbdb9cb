"""The pass over a file that is shown as it is: it cuts the file into segments, and looks no closer.

So a lock can have an index of it, by which everybody else reads it by the range.
"""

from cafs.codec.pointing import pointed
from cafs.codec.sniffing import Compression
from cafs.fetch.content.bridging import Intake
from cafs.fetch.passes.aside import Aside
from cafs.fetch.passes.cutting import SLICE, Cutter
from cafs.fetch.passes.making import MakePlanter
from cafs.model.limits import Limits
from cafs.store.trees.tree_writing import TreeWriter


def plant_file(
    intake: Intake, planter: MakePlanter, writer: TreeWriter, *, name: str, limits: Limits
) -> None:
    """Plant a root, and a segment for each slice of the file, which stays in the raw stream.

    Runs in a worker thread; reads everything.

    Raises:
        MalformedError: it has more bytes than ``limits`` allow.
        CafsError: as the intake.
    """
    planter(writer, name=name, limits=limits).finish()
    with Aside() as aside:
        source = pointed(Compression.NONE, intake.read, name, limits, spacing=SLICE)
        cutter = Cutter(source, writer, aside)
        size = 0
        while data := source.read(SLICE):
            cutter.add(size, data)
            size += len(data)
        intake.drain()
        cutter.end(size)
