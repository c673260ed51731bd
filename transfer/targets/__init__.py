"""One file per checkpoint format that can be written. `detectron2.py` is the format `detectron2`.

A target module offers
    SUMMARY                  one line for the command line's help
    SUFFIX                   the usual ending of its files, for help; nothing depends on it
    write(backbone, path)    writes the file; raises UserError for what the format cannot say
    run(loaded, images)      optional: what the target's own tool makes of images with the file that was written, by
                             stage as `transfer.features.features` has it; None where the tool is not installed
and transfer/sources has a module that reads the file back with nothing lost: the proof of a conversion needs it.
"""
