"""One training process: the GAN step, the loop around it, and the state that survives any interruption."""
