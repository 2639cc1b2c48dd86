"""`box2mask evaluate`: asks models about annotated images, and says how good their answers are."""
