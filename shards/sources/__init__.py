"""Folders, zip and tar files of pictures, and tables of labels."""
