"""Settings: cafs.toml, the user's and the system's files, environment and flags as one value.

``loading.load_settings`` is the door, ``values.Settings`` what comes out. Text forms of sizes and
durations exist only here. No other package sees the files or the environment.
"""
