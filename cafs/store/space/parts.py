"""The parts of one store, for those who look after all of it."""

import msgspec

from cafs.store.blobs.uploads import Uploads
from cafs.store.disk.layout import Layout
from cafs.store.holds.holds import Holds
from cafs.store.space.belonging import Belongings
from cafs.store.space.evicting import Evictor
from cafs.store.space.pinning import Pins
from cafs.store.space.removing import Remover
from cafs.store.space.room import Room
from cafs.store.tables.blob_records import BlobRecords
from cafs.store.tables.documents import Documents
from cafs.store.tables.ledger import Ledger
from cafs.store.tables.references import References
from cafs.store.tables.uses import Uses
from cafs.store.trees.attachments import Attachments
from cafs.store.trees.mounts import Mounts
from cafs.store.trees.trees import Trees


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What a store is made of."""

    layout: Layout
    ledger: Ledger
    records: BlobRecords
    uses: Uses
    holds: Holds
    room: Room
    remover: Remover
    evictor: Evictor
    pins: Pins
    belongings: Belongings
    references: References
    documents: Documents
    trees: Trees
    attachments: Attachments
    mounts: Mounts
    uploads: Uploads
