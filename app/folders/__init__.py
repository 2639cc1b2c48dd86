"""`box2mask run`: many images in, results in every format out; resumable, and no image harms another."""
