"""A blob of which all is wrong is fetched in large ranges, not piece by piece."""

import os

from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin

MIB = 1 << 20
SIZE = 16 * MIB


def test_two_blobs_that_were_swapped_cost_a_few_requests(cafs: Cafs, origin: Origin) -> None:
    bodies = {name: Generated(SIZE, seed=seed) for seed, name in enumerate(("one", "two"))}
    toml = ""
    for name, body in bodies.items():
        url = origin.put(f"/{name}", body)
        pin = f'integrity="sha256:{body.sha256()}"\n' if name == "one" else ""
        toml += f'[ref.{name}]\nfrom="{url}"\n{pin}'
    cafs.project(toml)
    cafs.run("prefetch", "-q")
    one, two = (next(cafs.store.glob(f"blobs/*/*/{b.sha256()}")) for b in bodies.values())
    aside = one.with_name("aside")
    os.rename(one, aside)
    os.rename(two, one)
    os.rename(aside, two)
    for name in bodies:
        origin.forget()
        cafs.run("cat", name)
        assert len(origin.requests) < 20
        assert origin.bytes_sent() <= SIZE + MIB
    assert cafs.run("verify").stdout.endswith("nothing is wrong\n")
