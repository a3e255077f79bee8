"""The command `jneuro`: heeds signals before anything else is imported."""

from jneuro.core.process import heed_signals


def main() -> None:
    """Run the command line."""
    heed_signals()
    from jneuro.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
