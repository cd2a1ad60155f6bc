"""The errors a user can cause or cure: they name the thing that is wrong, why, and the cure."""

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the same command, started again, may work


class UserError(ValueError):
    """Bad input (a file, a flag, a config, a checkpoint). The command line prints it as one line
    and exits with `exit_code`.
    """

    exit_code = 2


class TryAgainError(UserError):
    """Nothing was wrong with the command: another process, machine or service was late, lost or
    busy. Launchers start the same command again, as they do not after other errors.
    """

    exit_code = TRY_AGAIN
