"""The file system for the kernel: operations, errnos, session. pyfuse3's only door."""
