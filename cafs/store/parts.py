"""The parts of one store, for those who look after all of it."""

from dataclasses import dataclass

from cafs.store.attachments import Attachments
from cafs.store.belonging import Belongings
from cafs.store.blob_records import BlobRecords
from cafs.store.documents import Documents
from cafs.store.evicting import Evictor
from cafs.store.holds import Holds
from cafs.store.layout import Layout
from cafs.store.ledger import Ledger
from cafs.store.mounts import Mounts
from cafs.store.pinning import Pins
from cafs.store.references import References
from cafs.store.removing import Remover
from cafs.store.room import Room
from cafs.store.trees import Trees
from cafs.store.uploads import Uploads
from cafs.store.uses import Uses


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
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
