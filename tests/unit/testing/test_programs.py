"""The kit's own programs: the origin that serves a directory, and the bench."""

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path


def test_the_origin_serves_a_directory_until_it_is_told_to_end(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    command = [sys.executable, "-m", "cafs.testing.origin", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        try:
            url = served.stdout.readline().split()[-1]
            request = urllib.request.Request(f"{url}x", headers={"Range": "bytes=2-4"})
            with urllib.request.urlopen(request) as answer:
                assert answer.read() == b"234"
            assert served.stdout.readline() == "GET /x bytes=2-4 206 3\n"
        finally:
            served.send_signal(signal.SIGTERM)
        assert served.wait() == 0


def test_the_origin_refuses_what_is_no_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cafs.testing.origin", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no directory" in done.stderr


def test_the_bench_prints_ratios_and_writes_where_they_were_measured(tmp_path: Path) -> None:
    out = tmp_path / "out" / "bench.json"
    command = [sys.executable, "-m", "cafs.testing.bench", "help", "--rounds", "1"]
    done = subprocess.run([*command, "--json", out], capture_output=True, text=True, check=True)
    assert "cafs --help" in done.stdout
    found = json.loads(out.read_text())
    (row,) = found["results"]["help"]
    assert row["ours_s"] > row["reference_s"] > 0
    assert {"commit", "python", "system"} <= set(found["machine"])
