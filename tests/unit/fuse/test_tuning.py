"""Finding a mount's device without touching the mount."""

from pathlib import Path

from cafs.fuse.tuning import device_of, tune

MOUNTINFO = r"""21 26 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
36 26 0:35 / /mnt/a\040b rw,nosuid,nodev - fuse.cafs cafs rw
37 26 0:36 / /mnt/c rw - ext4 /dev/sda1 rw
38 37 0:41 / /mnt/c ro,nosuid,nodev - fuse.cafs cafs rw,user_id=0
"""


def test_the_uppermost_mount_counts() -> None:
    assert device_of(Path("/mnt/c"), MOUNTINFO) == "0:41"


def test_escaped_names_are_found() -> None:
    assert device_of(Path("/mnt/a b"), MOUNTINFO) == "0:35"


def test_only_a_newline_ends_a_line() -> None:
    odd = "35 26 0:34 / /mnt/o\rd\x0b\u2028d rw - tmpfs tmpfs rw\n"
    assert device_of(Path("/mnt/c"), odd + MOUNTINFO) == "0:41"
    assert device_of(Path("/mnt/o\rd\x0b\u2028d"), odd + MOUNTINFO) == "0:34"


def test_a_directory_that_is_no_mount_has_no_device() -> None:
    assert device_of(Path("/mnt"), MOUNTINFO) is None
    assert device_of(Path("/mnt/c/d"), MOUNTINFO) is None


def test_what_is_not_mounted_is_left_alone(tmp_path: Path) -> None:
    tune(tmp_path, 1024, 1024)
    assert list(tmp_path.iterdir()) == []
