"""Words as frozen values: parsed once at the edge, valid ever after. Pure; no I/O."""
