"""What the documents say about the daemons: their commands and the variables of their services exist."""

import re
import shlex

import msgspec

from drqueue.master import backup_command
from drqueue.master import cli as master_cli
from drqueue.settings import MasterSettings, SlaveSettings
from drqueue.slave import cli as slave_cli
from drqueue.slave import join_command
from tests.test_docs import DOCS, PAGES, ROOT


def test_commands_of_daemons_shown_are_understood() -> None:
    """`drqueue-slave join` and `drqueue-master` in a block, an indented line or between backticks."""
    shown = []
    for page in PAGES:
        text = page.read_text()
        found = re.findall(
            r"^(?:    )?(?:sudo )?(drqueue-(?:slave|master) .*)$|`(?:sudo )?(drqueue-slave join [^`]+)`",
            text,
            re.MULTILINE,
        )
        shown += [shlex.split(first or second, comments=True) for first, second in found]
    joins = [words for words in shown if words[:2] == ["drqueue-slave", "join"]]
    assert len(joins) > 4
    assert len(shown) > len(joins)
    for words in shown:
        if words in joins:
            join_command._parser().parse_args(words[2:])
        elif words[0] == "drqueue-slave":
            slave_cli._parser().parse_args(words[1:])
        elif words[1] in ("backup", "restore"):
            backup_command._parser(words[1]).parse_args(words[2:])
        else:
            master_cli.main([*words[1:], "--print-settings"])


def test_variables_of_services_shown_are_settings() -> None:
    """What somebody is told to write into /etc/default, or a unit."""
    known = {f"DRQUEUE_{name.upper()}" for name in (*fields_of(MasterSettings), *fields_of(SlaveSettings))}
    for page in (DOCS / "many-machines.md", DOCS / "security.md", ROOT / "systemd" / "README.md"):
        unknown = set(re.findall(r"DRQUEUE_[A-Z_]+", page.read_text())) - known
        assert unknown <= {"DRQUEUE_ACCESS"}, page.name


def fields_of(settings: type[msgspec.Struct]) -> tuple[str, ...]:
    return settings.__struct_fields__
