"""The collapse monitor: it measures images of the generator during training, and says how healthy the run is."""
