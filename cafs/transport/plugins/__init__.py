"""Plugins: programs in any language that answer for the URLs of a scheme (R-3).

Band: transport. The door is ``transport.open_plugin``; the protocol is in docs/plugins.md.
Of each plugin one process runs, which takes many requests at a time.
"""
