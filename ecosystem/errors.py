"""The one exception that means: the input is wrong, and here is what to type instead."""


class InputError(ValueError):
    """Bad input, found before any work is done.

    The message says what was given, what is allowed and what to type. The command line prints it
    without a traceback and exits with status 2.
    """
