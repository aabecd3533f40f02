"""Pictures of any format to pixels, or why not: `decode_image` (decode.py); `ENCODINGS` (encode.py) stores them.

The other files correct what Pillow gets wrong, by format, and explain what it cannot read.
"""
