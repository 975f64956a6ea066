"""Runs the command line from a checkout: `python cli.py generate …`. The commands live in distill/cli.py."""

from distill.cli import main

if __name__ == "__main__":
    main()
