"""The one error type a user can cause: it names the thing that is wrong, why, and the cure."""


class UserError(ValueError):
    """Bad input (a file, a flag, a config, a checkpoint). The command line prints it as one line
    and exits with code 2.
    """
