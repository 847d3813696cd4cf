"""`python -m oncecast.cli`: the same as `python -m oncecast`."""

from . import main

if __name__ == "__main__":
    main(prog_name="oncecast")
