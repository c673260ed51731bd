"""What a pickle asks for in memory, found out before any of it is given.

A few bytes of a pickle can ask for any amount of memory: as the length of a text, the place of a memo, or the size of
a tensor's storage. Reading a pickle's instructions, without following them, shows all three.
"""

import pickletools
from mmap import mmap
from pickle import UnpicklingError
from typing import IO, cast

MEMO_WRITES = ("PUT", "BINPUT", "LONG_BINPUT")


class TooLargeError(UnpicklingError):
    """A pickle asks for more memory than a file of its size can fill."""


def check_sizes(file: mmap, file_size: int) -> None:
    """Read one pickle's instructions from where `file` stands and leave it behind them.

    Raises:
        TooLargeError: a memo's place or a storage's size is beyond the file's size.
        ValueError: a text or number is longer than the rest of the file, or it is no pickle.
    """
    last_number = 0
    for opcode, argument, _ in pickletools.genops(cast(IO[bytes], file)):
        if opcode.name in MEMO_WRITES:
            place = int(argument or 0)
            if place > file_size:
                raise TooLargeError(f"a memo of {place} places in a file of {file_size} bytes")
        elif isinstance(argument, int):
            last_number = argument
        # torch.save: (kind, type, key, device, number of elements, view) and then this instruction.
        if opcode.name == "BINPERSID" and last_number > file_size:
            raise TooLargeError(f"a storage of {last_number} elements in a file of {file_size} bytes")
