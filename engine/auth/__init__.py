"""Who asks: keys, tokens and signatures, whichever door they come to."""
