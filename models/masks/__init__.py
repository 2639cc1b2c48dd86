"""Operations on binary masks: cleaning, boxes around them, outlines. Arrays in, arrays out; no models, no HTTP."""
