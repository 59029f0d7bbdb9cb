"""The API over a unix socket, and its client: what other processes may ask of a live mount.

The door: ``keeper``. A command is one datagram and so is its answer, a JSON object; who may ask is
who could end the mount anyway: its user, and root.
"""
