"""Refs and their texts and paths: round trips for anything, a clear answer for everything."""

import re
from string import ascii_lowercase, digits

from hypothesis import given, strategies as st

from cafs.errors import InvalidReferenceError, UnsupportedError
from cafs.model.digest import SIZES, Digest
from cafs.model.ref import (
    AppcRef,
    ArchiveRef,
    BlobRef,
    DigestRef,
    DockerRef,
    Ref,
    parse_ref,
)
from cafs.model.refpath import (
    KINDS,
    MAX_COMPONENT,
    Absent,
    Alias,
    Complete,
    Partial,
    path_of,
    step,
)

WORD = ascii_lowercase + digits
words = st.text(WORD, min_size=1, max_size=8)
dotted = st.lists(words, min_size=2, max_size=3).map(".".join)
ports = st.one_of(st.just(""), st.integers(1, 65535).map(":{}".format))
hosts = st.one_of(dotted, st.just("localhost"), st.ip_addresses(v=6).map("[{}]".format))
places = st.builds("{}{}".format, hosts, ports)
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# What a person may paste: legal characters, illegal ones, escapes, dot segments; no controls.
url_text = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5),
        st.sampled_from(["/", "@", ":", "?", "&", "=", "%2F", "%40", "%", "..", ".", "+", "%2b"]),
    ),
    max_size=8,
).map("".join)
urls = st.builds("{}://{}/{}".format, st.sampled_from(["http", "https"]), places, url_text)


def digests_by(name: str) -> st.SearchStrategy[Digest]:
    size = SIZES[name]
    return st.binary(min_size=size, max_size=size).map(lambda raw: Digest(name, raw))


digests = st.sampled_from(sorted(SIZES)).flatmap(digests_by)
tags = st.one_of(
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True),
    digests.filter(lambda digest: digest.algorithm != "sha512").map(
        lambda digest: f"{digest.algorithm}-{digest.hex}"
    ),
)
repositories = st.lists(
    st.from_regex(r"[a-z0-9]{1,5}((?:[._]|__|-{1,3})[a-z0-9]{1,3}){0,2}", fullmatch=True),
    min_size=1,
    max_size=4,
).map("/".join)
registries = places.filter(lambda place: bool({".", ":"} & set(place)) or place == "localhost")
dockers = st.builds(DockerRef, registries, repositories, st.none() | tags, st.none() | digests)
names = st.from_regex(r"[a-z0-9]{1,4}([-._~/][a-z0-9]{1,4}){0,4}", fullmatch=True)
labels = st.dictionaries(names, anything, max_size=4).filter(lambda each: each.get("version") != "")
appcs = st.builds(lambda name, pairs: AppcRef(name, tuple(pairs.items())), names, labels)
url_refs = st.one_of(st.builds(ArchiveRef, urls), st.builds(BlobRef, urls))
refs: st.SearchStrategy[Ref] = st.one_of(url_refs, dockers, appcs, st.builds(DigestRef, digests))
components = st.one_of(
    st.binary(min_size=1, max_size=20).filter(lambda word: not set(b"/\0") & set(word)),
    st.sampled_from(
        b"docker blob archive appc https http: a.b a.b:1 a.b+1 a a@ a:1 a@1 @ a%2F a%40@ library"
        b" docker.io x,y=z".split()
    ),
)


@given(refs)
def test_both_texts_of_a_ref_parse_to_it(ref: Ref) -> None:
    assert parse_ref(ref.canonical) == ref
    assert parse_ref(ref.friendly) == ref
    assert parse_ref(ref.canonical).canonical == ref.canonical
    assert parse_ref(ref.canonical).friendly.isascii() or isinstance(ref, AppcRef)


@given(refs, refs)
def test_refs_are_equal_exactly_when_their_canonical_texts_are(one: Ref, two: Ref) -> None:
    assert (one == two) == (one.canonical == two.canonical)
    assert one != two or hash(one) == hash(two)


@given(url_refs)
def test_r18_the_url_itself_round_trips(ref: ArchiveRef | BlobRef) -> None:
    again = parse_ref(ref.cimd)
    assert isinstance(again, ArchiveRef | BlobRef)
    assert again.url == ref.url
    assert BlobRef(ref.url).url == ref.url


@given(st.text())
def test_any_text_is_a_ref_or_refused_with_a_reason(text: str) -> None:
    try:
        parse_ref(text)
    except (InvalidReferenceError, UnsupportedError):
        return
    assert parse_ref(parse_ref(text).canonical) == parse_ref(text)


@given(st.text("ab._-", max_size=9))
def test_r21_repository_names_are_those_of_the_published_pattern(text: str) -> None:
    published = re.fullmatch(r"[a-z0-9]+((?:[._]|__|[-]*)[a-z0-9]+)*", text)
    try:
        DockerRef("h.example", text)
    except InvalidReferenceError:
        assert not published
    else:
        assert published


def components_of(path: str) -> tuple[bytes, ...]:
    return tuple(word.encode("ascii") for word in path.split("/"))


@given(st.one_of(url_refs, dockers, appcs))
def test_a_path_leads_back_to_its_ref_and_only_its_end_does(ref: Ref) -> None:
    try:
        path = path_of(ref)
    except InvalidReferenceError:
        fits = not isinstance(ref, ArchiveRef | BlobRef) or "//" not in ref.url.partition("://")[2]
        assert not fits or len(ref.canonical) > MAX_COMPONENT
        return
    assert ":" not in path
    found = components_of(path)
    assert all(0 < len(word) <= MAX_COMPONENT for word in found)
    assert step(found) == Complete(ref)
    for count in range(len(found)):
        assert step(found[:count]) == Partial(found[:count])
    assert step((*found, b"etc")) == Absent()


@given(st.sampled_from(KINDS), st.lists(components, max_size=6))
def test_every_path_has_an_answer_and_every_alias_leads_to_a_canonical_one(
    kind: str, rest: list[bytes]
) -> None:
    at: tuple[bytes, ...] = (kind.encode(),)
    for word in rest:
        found = step((*at, word))
        match found:
            case Partial(canonical):
                assert canonical == (*at, word)
                at = canonical
            case Complete(ref):
                assert components_of(path_of(ref)) == (*at, word)
                return
            case Absent():
                return
            case Alias(target):
                landed = list(at)
                for each in target.split("/"):
                    if each == "..":
                        landed.pop()
                    else:
                        landed.append(each.encode("ascii"))
                again = step(tuple(landed))
                assert isinstance(again, Partial | Complete)
                if isinstance(again, Complete):
                    return
                at = again.components
