"""`python -m medssl` is the command `medssl`, where the console script is not on the path."""

from medssl.cli import main

if __name__ == "__main__":  # worker processes import this file, too
    main()
