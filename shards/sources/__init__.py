"""List and read folders, zips and tars of pictures: `open_source` (source.py); label and sort them: listing.py."""
