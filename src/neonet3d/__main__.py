"""``python -m neonet3d``."""

from neonet3d.cli import main

if __name__ == "__main__":
    main()
