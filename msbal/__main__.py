"""``python -m msbal``, for torchrun."""

from msbal.cli import main

if __name__ == "__main__":
    main()
