"""A peer that has a torrent: makes one of the files of a directory, and serves it on loopback.

It says ``INFOHASH PORT`` and ends with its stdin. A program of its own, as peers are.
"""

import sys
import warnings
from pathlib import Path

import libtorrent as lt

PIECE = 64 << 10


def main(directory: Path) -> None:
    warnings.simplefilter("ignore", DeprecationWarning)
    files = lt.file_storage()
    lt.add_files(files, str(directory))
    made = lt.create_torrent(files, piece_size=PIECE, flags=lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, str(directory.parent))
    info = lt.torrent_info(lt.bencode(made.generate()))
    settings = lt.default_settings()
    settings |= {"listen_interfaces": "127.0.0.1:0", "enable_dht": False, "enable_lsd": False}
    settings |= {"enable_upnp": False, "enable_natpmp": False}
    session = lt.session(settings)
    session.add_torrent({"ti": info, "save_path": str(directory.parent)})
    sys.stdout.write(f"{info.info_hashes().v1} {session.listen_port()}\n")
    sys.stdout.flush()
    sys.stdin.read()


main(Path(sys.argv[1]))
