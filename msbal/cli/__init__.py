"""The command line: one file a command; parse, call, print."""


def main() -> None:
    """Run `msbal` with this process's arguments and exit with its code."""
    import os
    import signal
    import sys

    from msbal.cli.app import run

    if os.environ.get("_MSBAL_COMPLETE") == "complete_bash":
        from msbal.cli.completion import whole_words

        with whole_words():
            run([])
        return
    code = run(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # another would only disturb the exit
    if code == 130:
        # After Ctrl-C nobody should wait a second or more for the interpreter to tear down torch.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
