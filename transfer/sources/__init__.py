"""One file per checkpoint format that can be read. `moco.py` is the format `moco`.

A source module offers
    SUMMARY                       one line for the command line's help
    claims(content) -> bool       whether the content of a file is in this format, by its keys alone
    read(content, path) -> Found  its weights under their own names and the canonical ones, see transfer/found.py
"""
