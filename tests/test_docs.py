"""The documents say what is so: tables as the program is, examples that work, links that lead somewhere."""

import ast
import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import click
import msgspec
import pytest

from drqueue.client import depend_text, errors, jobfile
from drqueue.client.cli import main as cli_main
from drqueue.client.cli.common import Asked
from drqueue.configuration import load
from drqueue.master.core import demand, explain, limits, placement, shortage
from drqueue.master.core.order import FrameOrder
from drqueue.master.core.reasons import CODES
from drqueue.proto import expressions
from drqueue.proto.checks import check_spec
from drqueue.proto.ids import AttemptKey
from drqueue.proto.intervals import IntervalSet
from drqueue.proto.model import JobStateName, LayerSpec, RunOrder
from drqueue.proto.ranges import Chunks, FrameRange
from drqueue.proto.tags import BY_TAG
from drqueue.settings import MasterSettings, SlaveSettings
from drqueue.slave.environment import Node, command

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
PAGES = [*TOP, *sorted(DOCS.rglob("*.md")), ROOT / "systemd" / "README.md", ROOT / "examples" / "README.md"]
JOBS = (DOCS / "jobs.md").read_text()
OPERATIONS = (DOCS / "operations.md").read_text()
PROTOCOL = (DOCS / "protocol.md").read_text()
ARCHITECTURE = (DOCS / "architecture.md").read_text()
BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
#: What stands for something in a command that is shown, and something that it may stand for.
STANDS_FOR = {"ID": "0", "FRAME": "1", "FRAMES": "1-2", "N": "1", "P": "1", "MB": "1", "COMMAND": "jobs"}


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load_generator()


def rows(text: str, head: str) -> list[list[str]]:
    """The cells of the one table whose first line begins with `head`."""
    assert text.count(f"\n{head}") == 1, f"{head!r} stands {text.count(head)} times"
    lines = text.split(f"\n{head}", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def ticked(cell: str) -> str:
    """What stands in backticks in a cell."""
    match = re.match(r"`([^`]+)`", cell)
    assert match is not None, cell
    return match[1]


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", BLOCK.sub("", text))


# -- what is generated ------------------------------------------------------------------------------------


def test_generated_documents_are_up_to_date() -> None:
    """`python docs/generate.py` mends this."""
    for path, wanted in generate.documents().items():
        assert path.read_text() == wanted, path.name


def test_a_changed_document_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "protocol.md").write_text(PROTOCOL)
    (tmp_path / "one.md").write_text("a\n<!-- generated: master settings -->\nold\n<!-- end -->\nb\n")
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    assert generate.main(["--check"]) == 1
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    text = (tmp_path / "one.md").read_text()
    assert text.startswith("a\n<!--")
    assert text.endswith("<!-- end -->\nb\n")
    assert "`lease_s`" in text
    (tmp_path / "states.md").write_text((tmp_path / "states.md").read_text().replace("RUNNING", "FLYING"))
    assert generate.main(["--check"]) == 1


def test_every_setting_is_in_the_operations_page() -> None:
    for heading, program in (("### Master\n", MasterSettings), ("### Slave\n", SlaveSettings)):
        section = OPERATIONS.split(heading, 1)[1].split("<!-- end -->", 1)[0]
        for field in msgspec.structs.fields(program):
            row = next((line for line in section.splitlines() if line.startswith(f"| `{field.name}` |")), "")
            assert generate.help_of(field), f"{field.name} has no help"
            assert generate.help_of(field) in row, field.name


def test_settings_without_effect_are_exactly_those_named() -> None:
    """A setting that a program begins to use must leave the list, a new one without use must enter it."""
    line = next((x for x in OPERATIONS.splitlines() if "nothing acts on them yet" in x), "")
    named = set(re.findall(r"`(\w+)`", line))
    unused: dict[str, set[str]] = {}
    for program, folder in ((MasterSettings, "master"), (SlaveSettings, "slave")):
        source = "\n".join(path.read_text() for path in (ROOT / "drqueue" / folder).rglob("*.py"))
        used = set(re.findall(r"settings\.(\w+)", source))
        unused[folder] = set(program.__struct_fields__) - used - {"state_dir", "log_level"}
    assert unused == {"master": named, "slave": set()}


def test_every_command_and_option_is_in_the_command_line_page() -> None:
    text = (DOCS / "cli.md").read_text()
    for path, each in commands(cli_main.cli, "drqueue"):
        assert f"## {path}\n" in text, path
        section = text.split(f"## {path}\n", 1)[1].split("\n## ", 1)[0]
        everywhere = text.split("## Exit status", 1)[0]
        for option in [one for one in each.params if isinstance(one, click.Option)]:
            for name in (*option.opts, *option.secondary_opts):
                assert re.search(rf"{name}\b", section) or re.search(rf"{name}\b", everywhere), (path, name)


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        each = group.get_command(context, name)
        assert each is not None
        yield f"{path} {name}", each
        if isinstance(each, click.Group):
            yield from commands(each, f"{path} {name}")


def test_options_of_the_daemons_are_in_the_operations_page() -> None:
    for program in ("master", "slave"):
        shown = subprocess.run(
            [sys.executable, "-m", f"drqueue.{program}", "--help"], capture_output=True, text=True, check=True
        )
        options = set(re.findall(r"(--[a-z-]+)", shown.stdout)) - {"--help"}
        table = rows(OPERATIONS, f"| `drqueue-{program}` |")
        assert {ticked(row[0]).split()[0] for row in table} == options


def test_job_states_are_all_described() -> None:
    assert {name for name, _ in generate.JOB_STATES} == set(get_args(JobStateName))


# -- the protocol -------------------------------------------------------------------------------------------


def test_every_message_and_value_has_its_section_and_nothing_else_has() -> None:
    sections = set(re.findall(r"^### (\w+)$", PROTOCOL, re.MULTILINE))
    assert sections == set(generate.structs()) | {"AttemptKey"}
    assert {kind.__name__ for kind in BY_TAG.values()} <= sections


def test_every_field_has_its_row_and_a_meaning() -> None:
    for name, kind in generate.structs().items():
        section = PROTOCOL.split(f"\n### {name}\n", 1)[1].split("\n##", 1)[0]
        shown = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE)
        assert [row[0] for row in shown] == [f.encode_name for f in kind.fields if f.name != "rq"], name
        assert not [row[0] for row in shown if row[3] == generate._UNSAID or len(row[3]) < 2], name


def test_requests_and_their_answers_are_named_together() -> None:
    """Every request is said to have an answer."""
    asked = PROTOCOL.split("## Client to master, client to slave", 1)[1].split("\n## Answers", 1)[0]
    answers = PROTOCOL.split("\n## Answers", 1)[1].split("\n### ", 1)[0]
    requests = re.findall(r"^### (\w+)$", asked, re.MULTILINE)
    assert len(requests) > 15
    assert [name for name in requests if not re.search(rf"\b{name}\b", answers)] == []


def test_refusal_codes_are_those_that_clients_know_and_the_program_says() -> None:
    documented = {ticked(row[0]) for row in rows(PROTOCOL, "| code | when |")}
    known = {code for kind in vars(errors).values() for code in getattr(kind, "codes", ())}
    said = set[str]()
    for path in (ROOT / "drqueue").rglob("*.py"):
        if path.name != "explain.py":
            source = path.read_text()
            said |= set(
                re.findall(r"(?:Refused|_refusal|turn\.refuse)\(\s*(?:request, )?\"([a-z-]+)\"", source)
            )
            said |= set(re.findall(r"Refusal\([^)]*?code=\"([a-z-]+)\"", source, re.DOTALL))
    assert documented == known | said


# -- jobs.md ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "numbers"), rows(JOBS, "| range | frames |"))
def test_ranges_name_the_frames_shown(text: str, numbers: str) -> None:
    assert list(FrameRange.parse(ticked(text))) == [int(number) for number in numbers.split()]


@pytest.mark.parametrize(("text", "size", "attempts"), rows(JOBS, "| range | chunk |"))
def test_chunks_are_cut_as_shown(text: str, size: str, attempts: str) -> None:
    chunks = Chunks(FrameRange.parse(ticked(text)), int(size))
    shown = [[int(number) for number in part.split()] for part in attempts.split("/")]
    assert [list(chunks.members(chunk)) for chunk in range(len(chunks))] == shown


@pytest.mark.parametrize(("placeholder", "example"), [r[:2] for r in rows(JOBS, "| placeholder |")])
def test_placeholders_become_what_is_shown(placeholder: str, example: str) -> None:
    """In the second chunk of 1-20x2 with chunks of 3 on 2 cores, at the first attempt."""
    order = RunOrder(
        key=AttemptKey(0, 0, 1, 1), start=7, step=2, count=3, argv=(ticked(placeholder),), cores=2
    )
    assert list(Chunks(FrameRange.parse("1-20x2"), 3).members(1)) == [7, 9, 11]
    assert command(order, Node({}, "/", "/")).argv == (example,)


def test_variables_of_frames_are_exactly_those_listed() -> None:
    """The slave's own, without those that it only reads."""
    listed = {ticked(row[0]) for row in rows(JOBS, "| variable |")}
    order = RunOrder(key=AttemptKey(0, 0, 0, 1), start=1, argv=("true",), outputs=("a.{frame:04d}",))
    by_order = set(command(order, Node({}, "/", "/")).env)
    slave = ROOT / "drqueue" / "slave"
    sources = (slave / "environment.py").read_text() + (slave / "nodes.py").read_text()
    by_node = set(re.findall(r"(?:basis|env)\[\"(DRQUEUE_\w+)\"\] =|\"(DRQUEUE_\w+)\": ", sources))
    assert by_order <= listed
    assert listed == by_order | {first or second for first, second in by_node}


def toml_blocks(word: str = "") -> list[str]:
    found = [
        match["text"]
        for page in PAGES
        for match in BLOCK.finditer(page.read_text())
        if match["info"].split()[:1] == ["toml"] and (word in match["info"].split() if word else True)
    ]
    assert found
    return found


def test_job_files_shown_are_jobs() -> None:
    shown = [text for text in toml_blocks() if "[[layer]]" in text]
    assert len(shown) >= 2
    for text in shown:
        spec = jobfile.job_of(tomllib.loads(text), folder="/f", cwd="/c", owner="anna")
        assert check_spec(spec) is None


def test_settings_files_shown_can_be_loaded(tmp_path: Path) -> None:
    for text in toml_blocks("settings"):
        file = tmp_path / "slave.toml"
        file.write_text(text)
        assert set(load(SlaveSettings, config=str(file), env={}).sources.values()) == {"default", str(file)}


def test_keys_of_job_files_and_their_defaults_are_those_listed() -> None:
    for head, keys, kinds in (
        ("| key of `[job]` |", jobfile.JOB_KEYS, (generate.model.JobSpec,)),
        ("| key of `[[layer]]` |", jobfile.LAYER_KEYS, (LayerSpec, generate.model.Needs)),
    ):
        listed = {ticked(row[0]): row[1] for row in rows(JOBS, head)}
        assert set(listed) == set(keys)
        described = [field for kind in kinds for field in generate.inspect.type_info(kind).fields]
        for field in described:
            if field.name in listed and field.name not in ("owner", "cwd") and not field.required:
                assert listed[field.name] == generate.default_text(field), field.name


def test_attributes_of_expressions_are_exactly_those_listed() -> None:
    assert {ticked(row[0]) for row in rows(JOBS, "| attribute | value |")} == expressions.ATTRIBUTES


@pytest.mark.parametrize("text", [ticked(row[0]) for row in rows(JOBS, "| expression | slaves |")])
def test_expressions_shown_can_be_read(text: str) -> None:
    assert expressions.parse(text).names


@pytest.mark.parametrize(("order", "numbers"), rows(JOBS, "| order of `1-9` |"))
def test_orders_are_as_shown(order: str, numbers: str) -> None:
    waiting = IntervalSet([(0, 9)])
    found = FrameOrder(Chunks(FrameRange("1-9"), 1), ticked(order)).each(waiting)
    assert [position + 1 for position in found] == [int(number) for number in numbers.split()]


@pytest.mark.parametrize("text", [ticked(row[0]) for row in rows(JOBS, "| `--depend` |")])
def test_dependencies_shown_can_be_read(text: str) -> None:
    assert depend_text.depend_text(depend_text.parse_depend(text)) == text


@pytest.mark.parametrize("text", [ticked(row[0]) for row in rows(JOBS, "| in `depends` of a layer |")])
def test_dependencies_of_layers_shown_can_be_read(text: str) -> None:
    assert depend_text.depend_text(depend_text.parse_layer_depend(text)) == text


# -- operations.md, architecture.md ----------------------------------------------------------------------


def test_reasons_why_are_exactly_those_listed() -> None:
    """Each code that any of what judges and explains says, and no other."""
    said = {f"limit-{of}" for of in limits.BY_ITSELF}
    for module in (explain, shortage):
        said |= set(re.findall(r"""code(?:, name)? ?= ?"([a-z-]+)\"""", Path(module.__file__).read_text()))
        said |= set(re.findall(r"""code = "([a-z-]+)" if""", Path(module.__file__).read_text()))
    for module in (placement, demand):
        judges = Path(module.__file__).read_text()
        said |= {
            code
            for line in re.findall(r"return (.*\".*)", judges)
            for code in re.findall(r"\"([a-z-]+)\"", line)
        }
    assert said == set(CODES)
    section = OPERATIONS[OPERATIONS.index("## Why does nothing render") :]
    assert re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)[: len(CODES)] == list(CODES)


@pytest.mark.parametrize(
    ("what", "bound", "where"), [row[:3] for row in rows(ARCHITECTURE, "| what | bound |")]
)
def test_bounds_are_as_shown(what: str, bound: str, where: str) -> None:
    number, _, unit = bound.replace(",", "").partition(" ")
    wanted = float(number) * {"": 1, "s": 1, "KiB": 1 << 10, "MiB": 1 << 20}[unit]
    file, name = re.fullmatch(r"`([^`]+)` (\w+)", where).groups()  # type: ignore[union-attr]
    assert constant(ROOT / file, name) == wanted, what


def constant(path: Path, name: str) -> Any:
    """The value that a module gives a name at its top; read from its text, as some cannot be imported."""
    for node in ast.parse(path.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            return eval(compile(ast.Expression(node.value), str(path), "eval"), {})  # numbers of our own
    raise LookupError(f"{path} gives no {name}")


def test_every_import_contract_is_in_the_architecture_page() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert len(contracts) > 3
    for contract in contracts:
        assert f"| {contract['name']} |" in ARCHITECTURE


# -- examples --------------------------------------------------------------------------------------------


def shown_commands() -> list[tuple[str, str]]:
    """Every `drqueue ...` in a block of code, an indented line or between backticks, and its page."""
    found = []
    for page in PAGES:
        text = page.read_text()
        lines = [line for match in BLOCK.finditer(text) for line in joined(match["text"])]
        lines += joined("".join(re.findall(r"^    (.*\n)", BLOCK.sub("", text), re.MULTILINE)))
        if page.name == "cli.md":  # usage, written by the generator
            lines = []
        between = re.findall(r"(?<!`)`(drqueue\s[^`]+)`", BLOCK.sub("", text))
        lines += [" ".join(words.split()) for words in between]
        lines = [re.sub(r"^\w+=\$\((.*)\)$", r"\1", line) for line in lines]
        name = str(page.relative_to(ROOT))
        found += [(name, before_pipe(line)) for line in lines if re.match(r"drqueue [a-z]", line)]
    return found


def before_pipe(line: str) -> str:
    """The first command of a line; a | inside quotes or brackets is no pipe."""
    quoted = ""
    for at, char in enumerate(line):
        if char in "'\"" and quoted in ("", char):
            quoted = "" if quoted else char
        elif not quoted and line[at : at + 3] == " | ":
            return line[:at]
    return line


def test_a_pipe_ends_a_command() -> None:
    assert before_pipe("drqueue audit -n 9 | grep 'job 7'") == "drqueue audit -n 9"
    for whole in ("drqueue submit -- 'a | b'", "drqueue set 1 --max-cpus N|none", "drqueue jobs"):
        assert before_pipe(whole) == whole


def joined(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize(("page", "line"), shown_commands())
def test_commands_shown_are_understood(page: str, line: str) -> None:
    """Options exist, values fit; nothing is run."""
    line = re.sub(r"\[(\w+)\]", r"\1", line)
    words = [STANDS_FOR.get(word, word) for word in shlex.split(line, comments=True)][1:]
    context = click.Context(cli_main.cli, info_name="drqueue", obj=Asked())
    each: click.Command = cli_main.cli
    while isinstance(each, click.Group) and words and not words[0].startswith("-"):
        name, found, words = each.resolve_command(context, words)
        assert found is not None
        each, context = found, click.Context(found, info_name=name, parent=context)
    try:
        each.make_context(context.info_name, list(words), parent=context.parent)
    except click.exceptions.NoArgsIsHelpError:
        assert isinstance(each, click.Group), f"{page}: {line}"
    except click.MissingParameter:
        assert not words, f"{page}: {line}"  # the name of a command alone, in a sentence


def test_there_are_commands_to_check() -> None:
    assert len(shown_commands()) > 30
    assert {page for page, _ in shown_commands()} >= {"README.md", "docs/jobs.md", "docs/operations.md"}


@pytest.mark.slow
def test_first_day_goes_as_the_readme_says(tmp_path: Path) -> None:
    """The blocks marked `first-day`, one after the other, against a farm that `drqueue up` runs."""
    script = ["set -e"]
    for match in BLOCK.finditer((ROOT / "README.md").read_text()):
        info = match["info"].split()
        if info[1:2] == ["first-day"]:
            text = match["text"].replace("sleep 1;", "sleep 0.1;")  # long enough for people only
            script.append(text if info[0] == "sh" else f"cat > {info[2]} <<'END'\n{text}END\n")
    assert len(script) > 4
    bin_folder = Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "DRQUEUE_STATE_DIR": str(tmp_path / "farm"),
    }
    work = tmp_path / "work"
    work.mkdir()
    up = subprocess.Popen(
        [bin_folder / "drqueue", "up", "--slaves", "2"],
        env=env, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert up.stdout is not None
        assert up.stdout.readline() == "farm is up\n"
        ended = subprocess.run(
            ["bash", "-c", "\n".join(script)],
            env=env, cwd=work, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
    finally:
        up.send_signal(signal.SIGTERM)
        _, said = up.communicate(timeout=60)
    assert up.returncode == 0, said
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.startswith("0\n")
    assert "progress: 100%" in ended.stdout
    assert "job 0 finished: 24 of 24 frames done" in ended.stdout
    assert (work / "film.txt").read_text() == "".join(f"picture {number}\n" for number in range(1, 7))


def test_python_shown_compiles_and_its_names_exist() -> None:
    shown = [m["text"] for page in PAGES for m in BLOCK.finditer(page.read_text()) if m["info"] == "python"]
    assert shown
    for text in shown:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


# -- every page ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text()), target


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_named_exist(page: Path) -> None:
    folders = "drqueue|tests|docs|bench|systemd|examples"
    for name in re.findall(rf"`((?:{folders})/[\w./-]+)`", BLOCK.sub("", page.read_text())):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_names_a_private_place(page: Path) -> None:
    text = page.read_text()
    roots = set(re.findall(r"(?<![\w.~$}\])*/:-])/([a-z]+)/", text))
    assert roots <= {"bin", "dev", "etc", "mnt", "opt", "proc", "run", "somewhere", "tmp", "usr", "var"}
    hosts = set(re.findall(r"https?://([^/\s)]+)", text))
    assert hosts <= {"keepachangelog.com", "semver.org", "msgpack.org"}


def test_every_decision_is_listed_and_complete() -> None:
    listing = (DOCS / "decisions" / "README.md").read_text()
    pages = sorted((DOCS / "decisions").glob("0*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04d}" for n in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text()
        title = text.splitlines()[0].removeprefix(f"# {page.name[:4]} ")
        assert f"| [{page.name[:4]}]({page.name}) | {title} |" in listing
        for part in ("**What.**", "**Why.**", "**What else.**", "**What would change our mind.**"):
            assert text.count(part) == 1, (page.name, part)


def test_glossary_is_in_order_and_names_each_word_once() -> None:
    words = [row[0] for row in rows((DOCS / "glossary.md").read_text(), "| word |")]
    assert words == sorted(set(words), key=str.lower)


def test_change_log_has_an_unreleased_section() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "Unreleased"
