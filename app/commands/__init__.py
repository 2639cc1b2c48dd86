"""The commands of `box2mask`, one module each: `add` gives its parser, and `run` in there carries it out."""
