"""Ctrl-C at a chosen moment, in this process."""


def interrupted(real, after: int):
    """The function, which the user interrupts after so many calls."""
    left = [after]

    def one(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(*arguments)

    return one
