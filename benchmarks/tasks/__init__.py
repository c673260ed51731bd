"""One file per benchmark. `imagenet_linear.py` is the task `imagenet-linear`.

A task module offers
    SUMMARY    one line for the command line's help
    PROTOCOLS  name -> protocol (see benchmarks/protocol.py); `paper` and `smoke` at least
    ENGINES    the engines it can run on, the first of them for `auto`; `torch` for tasks without a choice
    run(backbone, data, protocol, context) -> Measurement
    identify(data, protocol, context) -> DataIdentity, that which `run` would return: it tells records of equal runs
and imports nothing heavy at its top, so that its help is instant.
"""
