"""What the networks minimise: objectives, penalties, and the passes of the discriminator that they share."""
