"""Bundles of trained generators (runs/bundle.py): written, published and fetched."""
