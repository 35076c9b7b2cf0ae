"""What the demo prints: scenes, a progress bar, promises."""

import os
import sys

TERMINAL = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
COLOURS = TERMINAL and not os.environ.get("NO_COLOR")
WIDTH = 40


class BrokenPromise(Exception):
    pass


def paint(code, text):
    return f"\033[{code}m{text}\033[0m" if COLOURS else text


def megabytes(count):
    return f"{count / 2**20:.1f}".removesuffix(".0") + " MB"


def write(text):
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def say(line):
    write(f"{Bar.rest}{line}\n")
    Bar.rest = ""


def title(text):
    say(paint(1, text))


def scene(text):
    say(f"\n{paint('1;36', '▌')} {paint(1, text)}")


def note(text):
    say(f"    {paint(2, text)}")


def promise(text, kept, instead=None):
    """Prints a promise; ends the demo if it was not kept."""
    if not kept:
        say(f"  {paint('1;31', '✘')} {text}")
        raise BrokenPromise(text if instead is None else f"{text}; instead: {instead}")
    promise.kept += 1
    say(f"  {paint('1;32', '✔')} {text}")


promise.kept = 0


class Bar:
    """Moves on a terminal; elsewhere a line for every tenth of the way, and for
    where it stops."""

    rest = ""  # to be written before anything else is

    def __init__(self, total):
        self.total = total
        self.tenths = None

    def show(self, done):
        filled = done * WIDTH // self.total
        line = (f"    {paint(36, '█' * filled)}{paint(2, '░' * (WIDTH - filled))}"
                f" {megabytes(done):>8} of {megabytes(self.total)}")
        tenths = done * 10 // self.total
        if TERMINAL:
            write(f"\r{line}\033[K")
            Bar.rest = "\n"
        elif tenths == self.tenths:
            Bar.rest = f"{line}\n"
        else:
            Bar.rest = ""
            say(line)
        self.tenths = tenths
