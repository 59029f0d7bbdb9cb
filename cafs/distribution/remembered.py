"""What a ref meant before, held against what the settings name now.

A mirror that was taken out of the settings is not asked any more, whatever the store remembers.
"""

from dataclasses import replace

from cafs.model.ref import ArchiveRef, BlobRef, DockerRef
from cafs.model.resolved import Part, Resolved
from cafs.model.spec import RefSpec


def still_meant(spec: RefSpec, remembered: Resolved | None) -> Resolved | None:
    """The remembered meaning, without URLs that the spec does not name.

    None when there was none, or when content without a pin was located at such a URL: then nothing
    tells what it is.
    """
    if remembered is None:
        return None
    parts = []
    for part in remembered.parts:
        urls = tuple(url for url in part.urls if _named(spec, url))
        if part.digest is None and urls[:1] != part.urls[:1]:
            return None
        parts.append(_with(part, urls))
    return replace(remembered, parts=tuple(parts))


def _named(spec: RefSpec, url: str) -> bool:
    match spec.ref:
        case ArchiveRef() | BlobRef():
            return url in {spec.ref.url, *spec.mirrors}
        case DockerRef():
            bases = (spec.ref.base_url, *spec.mirrors)
            return any(url.startswith(f"{base.rstrip('/')}/") for base in bases)
        case _:
            return url in spec.mirrors


def _with(part: Part, urls: tuple[str, ...]) -> Part:
    return part if urls == part.urls else replace(part, urls=urls)
