"""What other processes may ask of a live mount, and of whoever else fetches: sockets and clients.

``keeper`` is the door to a mount's keeper. ``fetches`` has the words that are exchanged with a
process that fetches, and their client; ``listening`` is the other end of that. A command is one
message and so is its answer, a JSON object; who may ask is who could end the process anyway: its
user, and root.
"""
