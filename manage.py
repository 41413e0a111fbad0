"""The command line; commands that need servers get embedded ones when no URL names real ones."""

import os
import sys

from config.embedded import servers_for


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    with servers_for(sys.argv):
        from django.core.management import execute_from_command_line  # noqa: PLC0415

        execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
