"""Whatever a settings file holds, it is settings or a SettingsError; a project never gets out."""

import tempfile
from pathlib import Path

from hypothesis import given, strategies as st

from cafs.errors import SettingsError
from cafs.model.address import file_path
from cafs.model.ref import ArchiveRef, BlobRef
from cafs.settings import units
from cafs.settings.document import Document, read
from cafs.settings.fetching import UNSAID
from cafs.settings.layers import Layer, of_file
from cafs.settings.places import within
from cafs.settings.schema import Origin, Voice
from cafs.settings.units import size

DIRECTORY = Path("/nowhere/project")
KEYS = [
    "mount",
    "defaults",
    "ref",
    "store",
    "hosts",
    "network",
    "map",
    "plugins",
    "dynamic",
    "path",
    "view",
    "budget",
    "allow-other",
    "suid",
    "dev",
    "verify",
    "deadline",
    "on-error",
    "pull",
    "quota",
    "allow",
    "proxy",
    "ca-bundle",
    "offline",
    "from",
    "integrity",
    "strip",
    "subdir",
    "mirrors",
    "platform",
    "gcc",
    "docker",
    ".x",
    "preserve-owner",
    "by-platform",
    "linux/amd64",
    "linux/arm64",
    "credentials",
    "helpers",
    "limits",
    "retry",
    "torrent",
    "h.example",
    "*.h.example",
    "https://h.example/",
    "command",
    "timeout",
    "username",
    "password",
    "password-file",
    "password-env",
    "token-env",
    "client-cert",
    "netrc",
    "connections",
    "prefetch-rate",
    "stall",
    "multiplier",
]
TEXTS = [
    "/",
    ".",
    "..",
    "../x",
    "/etc",
    "cafs",
    "a/b",
    "~/x",
    "20GiB",
    "60s",
    "5m",
    "fail",
    "wait",
    "block",
    "provisional",
    "new",
    "never",
    "lock",
    "0",
    "1",
    "linux/amd64",
    "file:x",
    "file:../x",
    "file:///etc/passwd",
    "file:/x",
    "blob+file:a/b/../../..",
    "https://h.example/x.tar",
    "https://h.example/",
    "s3://bucket/key/",
    "torrent:x",
    "1MiB/s",
    "PASSWORD",
    "docker://debian",
    "docker:a.b:1/x",
    "appc:a.b/c",
    "sha256:00",
    "h.example",
    "[::1]",
    "cimd:blob:v=0:file%3A..",
]
scalars = st.one_of(
    st.sampled_from(TEXTS), st.text(max_size=5), st.integers(-2, 3), st.booleans(), st.floats()
)
values = st.recursive(
    scalars | st.lists(scalars, max_size=2),
    lambda inner: st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
documents = st.dictionaries(st.sampled_from(KEYS), values, max_size=4)
entries = st.dictionaries(
    st.sampled_from(KEYS),
    scalars | st.dictionaries(st.sampled_from(KEYS), scalars, max_size=3),
    max_size=3,
)
fetching = st.dictionaries(
    st.sampled_from(["map", "credentials", "helpers", "plugins", "limits", "retry"]),
    entries,
    min_size=1,
    max_size=3,
)
choices = st.dictionaries(
    st.sampled_from(["linux/amd64", "linux/arm64"]),
    st.fixed_dictionaries({"from": st.sampled_from(TEXTS)}),
    min_size=1,
)
refs = st.dictionaries(
    st.sampled_from(["gcc", "x", "a.b"]),
    st.fixed_dictionaries({"from": st.sampled_from(TEXTS)}, optional={"mirrors": st.lists(
        st.sampled_from(TEXTS), max_size=2
    )}),
    min_size=1,
    max_size=2,
)  # fmt: skip
mounts = st.fixed_dictionaries({"path": st.sampled_from(TEXTS) | st.text(max_size=8)})


def layer(tables: dict[str, object], voice: Voice) -> Layer | None:
    try:
        document = Document(tables, origin=Origin("file", voice), directory=DIRECTORY)
        return of_file(document, {"HOME": "/nowhere/home"})
    except SettingsError as error:
        wrong = error
    assert wrong.path == "file"
    return None


def stays_inside(found: Layer) -> None:
    silent = Layer(
        mount_point=found.mount_point,
        view=found.view,
        budget=found.budget,
        refs=found.refs,
        terms=found.terms,
    )
    assert found == silent
    assert found.mount_point is None or within(found.mount_point, DIRECTORY)
    for draft in found.refs:
        urls = list(draft.spec.mirrors)
        if isinstance(draft.spec.ref, ArchiveRef | BlobRef):
            urls.append(draft.spec.ref.url)
        for path in filter(None, map(file_path, urls)):
            assert within(path, DIRECTORY)


@given(documents, st.sampled_from(Voice))
def test_any_document_is_settings_or_an_error_that_names_the_file(
    tables: dict[str, object], voice: Voice
) -> None:
    found = layer(tables, voice)
    if found is not None and voice is Voice.PROJECT:
        stays_inside(found)


@given(fetching, st.sampled_from(Voice))
def test_only_the_machines_files_say_how_things_are_fetched(
    tables: dict[str, object], voice: Voice
) -> None:
    found = layer(tables, voice)
    assert found is None or voice is Voice.MACHINE or found.fetching == UNSAID


@given(choices)
def test_no_choice_by_platform_leads_out_of_the_project(tables: dict[str, object]) -> None:
    ref = {"by-platform": tables, "platform": "linux/amd64"}
    found = layer({"ref": {"x": ref}}, Voice.PROJECT)
    if found is not None:
        assert "linux/amd64" in tables
        stays_inside(found)


@given(
    st.builds(lambda ref: {"ref": ref}, refs) | st.builds(lambda mount: {"mount": mount}, mounts)
)
def test_a_project_names_content_and_never_places_outside_itself(tables: dict[str, object]) -> None:
    found = layer(tables, Voice.PROJECT)
    if found is not None:
        stays_inside(found)


@given(st.binary(max_size=60) | st.text('[]"=.#\n ax1{}', max_size=40).map(str.encode))
def test_any_file_is_a_document_or_an_error(raw: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(raw)
        file.flush()
        try:
            assert read(Path(file.name), Voice.PROJECT) is not None
        except SettingsError as error:
            wrong = error.path
        else:
            return
        assert wrong == file.name


@given(st.integers(0, 10**6), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB"]))
def test_sizes_count_in_powers_of_1024(count: int, unit: str) -> None:
    power = ["B", "KiB", "MiB", "GiB", "TiB"].index(unit)
    assert size(f"{count}{unit}") == size(f"{count} {unit.lower()}") == count * 1024**power


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 999))
def test_durations_add_up(hours: int, minutes: int, millis: int) -> None:
    seconds = units.duration_s(f"{hours}h{minutes}m{millis}ms")
    assert seconds == (hours * 3_600_000 + minutes * 60_000 + millis) / 1000
