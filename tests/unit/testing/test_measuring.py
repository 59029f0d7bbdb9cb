"""Numbers are only as good as the ruler."""

import subprocess
from pathlib import Path

import pytest

from cafs.testing import measuring
from cafs.testing.answers import Ask
from cafs.testing.bodies import Generated
from cafs.testing.faults import Rate
from cafs.testing.measuring import Measured, alternating, in_turn, output, seconds, table
from cafs.testing.origin import Origin
from cafs.testing.serving import Line

PROBE = Path(measuring.__file__).with_name("probe.c")


def test_alternating_warms_up_and_takes_medians() -> None:
    times = {0: iter([100.0, 1.0, 9.0, 2.0]), 1: iter([100.0, 4.0, 4.0, 400.0])}
    calls: list[int] = []

    def run(side: int) -> float:
        calls.append(side)
        return next(times[side])

    assert alternating(run, 3) == (2.0, 4.0)
    assert calls == [0, 1] * 4


def test_a_table_has_ratios_and_leaves_blank_what_is_unknown() -> None:
    rows = [
        Measured("read", 0.003, 0.002, sent=300, needed=200, requests=2),
        Measured("requests", note="lookup 1"),
    ]
    head, read, requests, *_ = table("warm", rows).splitlines()
    assert head.split()[:3] == ["warm", "cafs", "ms"]
    assert read.split() == ["read", "3.00", "2.00", "1.50", "300", "1.50", "2"]
    assert requests.split() == ["requests", "lookup", "1"]


def test_a_third_side_is_compared_with_the_reference_or_else_with_ours() -> None:
    times = iter([1.0, 2.0, 4.0] * 4)
    assert in_turn(lambda _: next(times), 4, 3) == (1.0, 2.0, 4.0)
    rows = [Measured("read", 1.0, 2.0, 4.0), Measured("ready", 1.0, without_s=0.5)]
    _, read, ready, *_ = table("warm", rows).splitlines()
    assert read.split() == ["read", "1000.00", "2000.00", "0.50", "2.00"]
    assert ready.split() == ["ready", "1000.00", "0.50"]


def test_a_command_that_fails_is_no_measurement() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        seconds(["false"])
    with pytest.raises(subprocess.CalledProcessError):
        output(["false"])


def test_a_shared_line_makes_up_for_lost_time_but_not_for_idleness() -> None:
    line = Line()
    assert line.admit(1.0, now_s=100.0) == pytest.approx(100.98)
    assert line.admit(1.0, now_s=100.5) == pytest.approx(101.98)
    assert line.admit(1.0, now_s=101.99) == pytest.approx(102.98)
    assert line.admit(1.0, now_s=200.0) == pytest.approx(200.98)


def test_a_shared_rate_changes_no_byte(origin: Origin, tmp_path: Path) -> None:
    url = origin.put("/x", Generated(300_000))
    origin.fault("/x", Rate(30_000_000, shared=True))
    copy = tmp_path / "x"
    seconds(["curl", "-sfo", str(copy), url])
    assert copy.read_bytes() == origin.expected("/x")
    assert not Rate(1).strikes(Ask("HEAD", "/x"))


@pytest.mark.parametrize("verb", ["stat", "read"])
def test_the_probe_touches_every_file_of_its_list(tmp_path: Path, verb: str) -> None:
    probe = tmp_path / "probe"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-o", probe, PROBE], check=True)
    (tmp_path / "a b").write_text("x")
    listed = tmp_path / "list"
    listed.write_text(f"{tmp_path / 'a b'}\n")
    assert int(output([str(probe), verb, str(listed)])) > 0
    listed.write_text(f"{tmp_path / 'a b'}\n{tmp_path / 'none'}\n")
    done = subprocess.run([probe, verb, listed], capture_output=True, check=False)
    assert (done.returncode, b"none" in done.stderr) == (1, True)
