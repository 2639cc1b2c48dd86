"""HTTP's edge: who may ask, how much, and what is told of it."""
