"""The composition root: settings become running objects. The one package that names every class.

``transports`` wires what every request goes through, ``distribution`` what refs mean, and
``system`` round these the store, the fetcher and the file system. What a verb does with them stands
with the verb: ``cafs.cli.mounts.serving`` puts the file system before a kernel.

What a worker does without until somebody asks for it is imported where it is made: a worker that
takes the place of another is waited for by everyone who reads.
"""
