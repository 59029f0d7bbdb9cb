"""Cancelling: whatever step an opening is cancelled at, the next one gives the whole tree."""

import gzip
import hashlib
from dataclasses import dataclass, field

import pytest
import trio
from typing_extensions import override

from cafs.testing import archives
from cafs.testing.origin import Origin
from tests.unit.distribution.conftest import USUAL, World


@dataclass(eq=False)
class CancelAt(trio.abc.Instrument):
    """Cancels a scope when its task has run so many steps."""

    steps: int
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    task: trio.lowlevel.Task = field(default_factory=trio.lowlevel.current_task)

    @override
    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps -= 1
            if not self.steps:
                self.scope.cancel()


@pytest.mark.parametrize("pinned", [False, True])
async def test_an_opening_cancelled_at_any_step_leaves_nothing_that_hinders_the_next(
    world: World, origin: Origin, *, pinned: bool
) -> None:
    finished = steps = 0
    while finished < 2:
        steps += 1
        items = (archives.directory("a"), archives.file(f"a/{steps}", "content"))
        data = gzip.compress(archives.tar(items), mtime=0)
        claim = f"sha256:{hashlib.sha256(data).hexdigest()}" if pinned else None
        spec = world.spec(origin.put(f"/{steps}.tar.gz", data), strip=1, integrity=claim)
        cancel = CancelAt(steps)
        trio.lowlevel.add_instrument(cancel)
        with cancel.scope:
            await world.resolver.tree(spec, USUAL)
        trio.lowlevel.remove_instrument(cancel)
        finished += not cancel.scope.cancelled_caught
        assert await world.tree(spec) == {str(steps): "content"}
        assert world.resolver.error(spec) is None
    assert steps > 5
