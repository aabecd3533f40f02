"""The published protocols for mode collapse: data whose modes can be counted, and recipes that are tried on it."""
