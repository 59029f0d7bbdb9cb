"""The verbs, one file each: ``cafs mount`` is ``mount``. Loaded when they are called."""
