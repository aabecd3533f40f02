"""Distances between real and painted pictures: one file per metric."""
