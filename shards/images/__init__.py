"""From the bytes of a picture to pixels, or to the reason why it is left out."""
