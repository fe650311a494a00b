"""Artefacts on disk: written whole or not at all, and checked before anything is parsed.

    indexes/movies/
    ├── CURRENT            the version in use and the SHA-256 of its manifest
    ├── .lock              held by the process that writes
    └── v000007/           never changed once it has this name
        ├── SEAL           what CURRENT says when this version is in use
        ├── manifest.json  every file's size, SHA-256, shape and dtype, and what the index is about
        ├── item_factors.npy, catalog.parquet, index.faiss, ...

A reader goes CURRENT -> manifest -> files, and each step holds the hash of the next: one flipped bit anywhere is found
and named. A writer fills a temporary folder, syncs it, renames it, and replaces CURRENT last. Readers take no lock.

Not promised: power loss on disks that lie about fsync, network file systems, Windows, and artefacts from people you do
not trust (a checksum proves that a file is unchanged, not who wrote it).
"""

from geo_mf.store.contents import Contents, StoredTable
from geo_mf.store.layout import LAYOUT, FileEntry, Layout, Manifest
from geo_mf.store.overview import VersionOnDisk, overview
from geo_mf.store.reading import VerifyReport, read_manifest, read_version, verify, versions
from geo_mf.store.writing import prune, publish

__all__ = [
    "LAYOUT",
    "Contents",
    "FileEntry",
    "Layout",
    "Manifest",
    "StoredTable",
    "VerifyReport",
    "VersionOnDisk",
    "overview",
    "prune",
    "publish",
    "read_manifest",
    "read_version",
    "verify",
    "versions",
]
