"""Jobs as TOML files, for `drqueue submit --file`.

    [job]
    name = "shot 12"
    priority = 700
    env = { SHOT = "12" }

    [[layer]]
    name = "render"
    command = ["blender", "-b", "shot.blend", "-o", "//render_####", "-s", "{start}", "-e", "{end}", "-a"]
    frames = "1-240"
    chunk = 4
    cores = 4
    memory_mb = 8000
    outputs = ["render_{frame:04d}.png"]

    tags = ["ssd"]
    limits = { arnold = 1 }

    [[layer]]
    name = "encode"
    command = "ffmpeg -y -i render_%04d.png shot.mp4"
    after = ["render"]

A command is a list of words, or a string for the shell; in its place a layer may have `kind` and a table
`params`, of which the command, and mostly outputs, are made (`drqueue kinds`). Keys are the fields of
`JobSpec` and `LayerSpec`, with `command` for argv and shell, and those of `Needs` (cores, memory_mb, os and
so on) in place of needs. `depends` is a list of texts, as `depend_text` reads them, or of tables; in [job] of
job ids, too. `limits` is a table, or a list of names of which an attempt takes one each. A relative cwd is
relative to the file; without one it is where submit was typed. An unknown key is an error that names the
nearest one.
"""

import os
import tomllib
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import msgspec

from drqueue.client.depend_text import DependTextError, parse_depend, parse_layer_depend
from drqueue.client.specs import fault, program_of
from drqueue.proto.model import SCRATCH, Alternative, Depend, JobSpec, LayerDepend, LayerSpec, Needs
from drqueue.proto.placeholders import escaped

T = TypeVar("T")

JOB_KEYS = frozenset(JobSpec.__struct_fields__) - {"layers"}
NEEDS_KEYS = frozenset(Needs.__struct_fields__)
LAYER_KEYS = (
    (frozenset(LayerSpec.__struct_fields__) - {"argv", "shell", "needs"})
    | NEEDS_KEYS
    | {"command", "kind", "params"}
)


class JobFileError(Exception):
    """A job file that cannot be used; the text is one sentence that names the file.

    `kind` is set where a kind cannot be used, or does not take its parameters: its name, "" for none of ours.
    """

    def __init__(self, text: str, kind: str | None = None) -> None:
        super().__init__(text)
        self.kind = kind


def read_job_file(path: str, *, cwd: str, owner: str) -> JobSpec:
    """The job in a file; `cwd` and `owner` stand in for what it does not say. Raises JobFileError."""
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise JobFileError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise JobFileError(f"{path}: is not TOML: {str(error).splitlines()[0]}") from None
    try:
        return job_of(content, folder=os.path.dirname(os.path.abspath(path)), cwd=cwd, owner=owner)
    except JobFileError as error:
        raise JobFileError(f"{path}: {error}", error.kind) from None


def job_of(content: Mapping[str, Any], *, folder: str, cwd: str, owner: str) -> JobSpec:
    """The job that a file's parsed content describes. Raises JobFileError."""
    _known(content, {"job", "layer"}, "the file")
    tables = content.get("layer", [])
    if not isinstance(tables, list) or not tables:
        raise JobFileError("it needs at least one [[layer]] table")
    job = _table(content.get("job", {}), "[job]")
    _known(job, JOB_KEYS, "[job]")
    if "depends" in job:
        job["depends"] = _depends(job["depends"], "[job]", Depend, parse_depend)
    layers = [_layer(table, number, folder, cwd) for number, table in enumerate(tables)]
    # The job is of the kind of its first layer that has one.
    made_of = next((_made_of(table) for table in tables if "kind" in table), {})
    if "kind" not in job and "params" not in job:
        job.update({key: made_of[key] for key in ("kind", "params") if key in made_of})
    if made_of and "kind" in tables[0]:
        job.setdefault("name", made_of["name"])
    job.setdefault("owner", owner)
    job.setdefault("name", default_name(layers[0]))
    return _converted({**job, "layers": layers}, JobSpec, "[job]")


def default_name(layer: LayerSpec) -> str:
    """What a job without a name is called: the program of its first layer."""
    name = os.path.basename(layer.argv[0]) if layer.argv else program_of(layer.shell)
    return name[:127] or "job"


def _layer(given: Any, number: int, folder: str, cwd: str) -> LayerSpec:
    where = f"[[layer]] number {number + 1}"
    table = _table(given, where)
    if isinstance(table.get("name"), str):
        where = f"layer {table['name']!r}"
    _known(table, LAYER_KEYS, where)
    command = table.pop("command", None)
    if "kind" in table or "params" in table:
        if command is not None:
            raise JobFileError(f"{where}: either a command, or kind and params")
        table = _of_kind(table, where)
    elif isinstance(command, str):
        table["shell"] = command
    elif isinstance(command, list) and all(isinstance(word, str) for word in command):
        table["argv"] = tuple(command)
    elif command is None:
        raise JobFileError(f"{where}: a command is missing")
    else:
        raise JobFileError(f"{where}: command must be a list of words, or a string for the shell")
    needs = {key: table.pop(key) for key in NEEDS_KEYS & table.keys()}
    for key in ("os", "tags"):
        if isinstance(needs.get(key), str):
            needs[key] = (needs[key],)
    for other in _tables(needs.get("alternatives"), f"alternatives of {where}"):
        _known(other, Alternative.__struct_fields__, f"alternatives of {where}")
    if needs:
        table["needs"] = needs
    for key in ("frames", "order", "next"):
        if isinstance(table.get(key), int) and not isinstance(table[key], bool):
            table[key] = str(table[key])
    if "depends" in table:
        table["depends"] = _depends(table["depends"], where, LayerDepend, parse_layer_depend)
    limits = table.get("limits")
    if isinstance(limits, list) and all(isinstance(name, str) for name in limits):
        table["limits"] = {name: limits.count(name) for name in limits}
    place = table.get("cwd", cwd)
    if isinstance(place, str) and place not in ("", SCRATCH):
        table["cwd"] = os.path.join(escaped(folder), os.path.expanduser(place))
    return _converted(table, LayerSpec, where)


def _of_kind(table: dict[str, Any], where: str) -> dict[str, Any]:
    """A layer's table, with the command that its kind makes of its params in their place."""
    from drqueue.client.kinds import KINDS, Frames, KindError, find  # only those who use kinds pay for them

    kind, params = table.pop("kind", "general"), _table(table.pop("params", {}), f"params of {where}")
    if not isinstance(kind, str):
        raise JobFileError(f"{where}: kind must be the name of one")
    frames, chunk = table.pop("frames", None), table.pop("chunk", None)
    if isinstance(frames, int) and not isinstance(frames, bool):
        frames = str(frames)
    if not isinstance(frames, str | None) or isinstance(chunk, bool) or not isinstance(chunk, int | None):
        raise JobFileError(f"{where}: frames must be a range, and chunk a whole number")
    try:
        made = find(kind).build(params, Frames(frames, chunk))
    except KindError as error:
        known = kind.lower() if kind.lower() in KINDS else ""
        raise JobFileError(f"{where}: {error}", known) from None
    fields = ("argv", "shell", "frames", "chunk", "outputs", "progress", "success_exit_codes")
    built = {field: getattr(made, field) for field in fields if getattr(made, field)}
    outputs = table.get("outputs")
    if isinstance(outputs, list):
        built["outputs"] = [*made.outputs, *outputs]
    return {**built, **{key: value for key, value in table.items() if key != "outputs" or key not in built}}


def _made_of(table: Mapping[str, Any]) -> dict[str, Any]:
    """A job's kind, params and default name, by a layer's table of which the layer could be made."""
    from drqueue.client.kinds import find

    kind = find(table["kind"])
    texts = kind.texts(table.get("params", {}))
    return {"kind": kind.name, "params": texts, "name": kind.default_job_name(texts)}


def _depends(
    given: Any, where: str, kind: type[Depend | LayerDepend], read: Callable[[str], Depend | LayerDepend]
) -> Any:
    """Dependencies, those that are texts or ids read."""
    found = []
    for number, each in enumerate(given if isinstance(given, list) else [given], 1):
        if isinstance(each, int) and not isinstance(each, bool):
            each = str(each)
        if isinstance(each, str):
            try:
                depend = read(each)
            except DependTextError as error:
                raise JobFileError(f"{where}: depends: {error}") from None
            if not isinstance(depend, kind):
                raise JobFileError(
                    f"{where}: depends: {each!r} is frame by frame: it belongs into a [[layer]]"
                )
            found.append(msgspec.to_builtins(depend))
        else:
            place = f"depends number {number} of {where}"
            table = _table(each, place)
            _known(table, kind.__struct_fields__, place)
            found.append(table)
    return found


def _tables(given: Any, where: str) -> list[dict[str, Any]]:
    """The tables of a list, if it is one; what else it is, is refused with the types of the whole."""
    return [_table(each, where) for each in given] if isinstance(given, list) else []


def _table(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise JobFileError(f"{where} must be a table")
    return dict(given)


def _known(table: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for key in table:
        if key not in known:
            import difflib  # only a mistake pays for it

            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(sorted(known))}"
            raise JobFileError(f"unknown key {key!r} in {where}: {hint}")


def _converted(table: Mapping[str, Any], kind: type[T], where: str) -> T:
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        place, text = fault(error, kind)
        # What is needed are keys of the layer itself.
        field = place.removeprefix("needs.")
        raise JobFileError(f"{where}: {field + ': ' if field else ''}{text}") from None
