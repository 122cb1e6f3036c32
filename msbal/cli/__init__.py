"""The command line: one file a command; parse, call, print."""


def main() -> None:
    """Run `msbal` with this process's arguments and exit with its code."""
    import sys

    from msbal.cli.app import run

    sys.exit(run(sys.argv[1:]))
