"""One file per checkpoint format that can be read. `moco.py` is the format `moco`.

A source module offers
    SUMMARY                               one line for the command line's help
    TESTED_WITH                           the package whose own files the tests read (optional: names alone are tested)
    LAYOUTS                               how its files are laid out, as data, see transfer/layout.py
    RELEASED                              files that the format's authors released, known by their MD5 (optional)
    finish(found, content, path) -> Found where names do not say it all (optional): what else the file says of itself

The layouts of all modules exclude each other: a test makes a file of each and reads it. docs/formats.md shows how to
add a format.
"""
