"""The one exception for what a user can mend."""


class UserError(ValueError):
    """Something the user can mend. The message says what was expected, what was found and what to do.

    The command line prints it as one line, `error: ...`, and exits with status 2.
    """
