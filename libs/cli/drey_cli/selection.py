"""Choosing PVs on the command line: options to a `Selector`, the same at every command."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from drey_cli.contracts import selector_pb2
from drey_cli.errors import usage_error
from drey_cli.options import CHOOSING, argument, member_option, packed_options

_WILD = frozenset("*?")


@dataclass(frozen=True, slots=True)
class Choice:
    """What was said of which PVs."""

    names: Sequence[str] = ()
    globs: Sequence[str] = ()
    tags: Sequence[str] = ()
    devices: Sequence[str] = ()
    all: bool = False
    names_from: str = ""
    except_names: Sequence[str] = ()
    except_globs: Sequence[str] = ()
    except_tags: Sequence[str] = ()
    except_devices: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """Nothing was said, not even an exception."""
        return not (self.chooses_any or self.excepts_any)

    @property
    def chooses_any(self) -> bool:
        """Something was said that chooses PVs."""
        return bool(
            self.names or self.globs or self.tags or self.devices or self.all or self.names_from
        )

    @property
    def excepts_any(self) -> bool:
        """Something was said that takes PVs out."""
        return bool(
            self.except_names or self.except_globs or self.except_tags or self.except_devices
        )

    def required_selector(self) -> selector_pb2.Selector:
        """The selector; a usage error where nothing was chosen."""
        if not self.chooses_any:
            raise usage_error(
                "no PVs were chosen",
                remedy="name them, or choose with --glob, --tag, --device, --names-from; --all says"
                " every PV",
            )
        return self.build_selector()

    def optional_selector(self) -> selector_pb2.Selector | None:
        """The selector; None where nothing was said. An exception alone is taken from all."""
        return None if self.is_empty else self.build_selector()

    def build_selector(self) -> selector_pb2.Selector:
        """The selector of what was said. Reads the file of `--names-from`."""
        names = [*self.names, *(read_names(self.names_from) if self.names_from else ())]
        exact, wild = split_names(names)
        if self.all and (exact or wild or self.globs):
            raise usage_error(
                "--all is every PV; it cannot be said together with names or --glob",
                field="--all",
                remedy="leave --all out, or the names",
            )
        selector = selector_pb2.Selector(
            all=self.all or not self.chooses_any,
            names=exact,
            globs=[*wild, *self.globs],
            devices=self.devices,
            tags=tag_filters(self.tags, option="--tag"),
        )
        if self.excepts_any:
            _set_except(self, selector)
        return selector


_NAMES_HELP = "Names of PVs or addresses; * and ? make a pattern."
_FILE_HELP = "Names, one a line; - is stdin."
_TAGS = "GROUP=TAG[,TAG]"


_choosing = member_option("choice", CHOOSING)
_several = partial(_choosing, multiple=True)
_OPTIONS = (
    _several("--glob", "globs", "Pattern: *, ?, or one of [abc].", metavar="PATTERN"),
    _several("--tag", "tags", "Any of the tags; repeated: each.", metavar=_TAGS),
    _several("--device", "devices", "Any of these devices.", metavar="NAME"),
    _choosing("--all", "all", "Every PV.", is_flag=True),
    _choosing("--names-from", "names_from", _FILE_HELP, default="", metavar="FILE"),
    _several("--except", "except_names", "Take out this name or pattern.", metavar="PV"),
    _several("--except-glob", "except_globs", "Take out by pattern.", metavar="PATTERN"),
    _several("--except-tag", "except_tags", "Take out by tag.", metavar=_TAGS),
    _several("--except-device", "except_devices", "Take out by device.", metavar="NAME"),
)
_NAMES = argument("choice_names", nargs=-1, metavar="[PV]...", help=_NAMES_HELP)
choosing = packed_options("choice", Choice, _NAMES, *_OPTIONS)
"""Options that choose PVs; the function gets a `Choice`, as `choice`."""
choosing_by_option = packed_options(
    "choice", Choice, _several("--pv", "names", _NAMES_HELP, metavar="PV"), *_OPTIONS
)
"""The same for a command whose own arguments are many: names of PVs are given by `--pv`."""


def _set_except(choice: Choice, selector: selector_pb2.Selector) -> None:
    """Fill `excluding`, which is a selector too: its names, devices and tags narrow each other.

    A person who excepts a name and a device means both, and a restore that wrote one of them would
    be a disaster: what one selector cannot say is refused, never read the narrow way.
    """
    by_name = bool(choice.except_names or choice.except_globs)
    kinds = by_name + bool(choice.except_devices) + len(choice.except_tags)
    if kinds > 1:
        raise usage_error(
            "exceptions of several kinds cannot be said in one selection",
            field="--except",
            remedy="except by names and globs, or by devices, or by one tag group; or write the"
            " names into a file: drey pv list --json ... and --names-from",
        )
    exact, wild = split_names(choice.except_names)
    taken_out = selector_pb2.Selector(
        names=exact,
        globs=[*wild, *choice.except_globs],
        devices=choice.except_devices,
        tags=tag_filters(choice.except_tags, option="--except-tag"),
    )
    selector.excluding.CopyFrom(taken_out)


def tag_filters(texts: Iterable[str], *, option: str) -> list[selector_pb2.TagFilter]:
    """`GROUP=TAG[,TAG]` as filters; `GROUP` alone is any tag of the group."""
    filters = []
    for text in texts:
        group, tags = parse_tag(text, option=option)
        filters.append(selector_pb2.TagFilter(group=group, tags=tags))
    return filters


def parse_tag(text: str, *, option: str) -> tuple[str, list[str]]:
    """Group and tags of `GROUP=TAG[,TAG]`."""
    group, equals, rest = text.partition("=")
    tags = [tag.strip() for tag in rest.split(",") if tag.strip()]
    if not group.strip() or (equals and not tags):
        raise usage_error(
            f"{option}: {text!r} is not GROUP=TAG", field=option, remedy="as in Area=LI21,LI22"
        )
    return group.strip(), tags


def split_names(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names, and patterns: no EPICS name can hold `*` or `?`, so these are patterns."""
    exact = [name for name in names if not _WILD.intersection(name)]
    wild = [name for name in names if _WILD.intersection(name)]
    return exact, wild


def read_names(path: str) -> list[str]:
    """Names of a file, one a line, `-` for standard input; blank lines and `#` comments skipped."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise usage_error(
            f"cannot read {path}: {error}",
            field="--names-from",
            remedy="name a file that you may read, or - for standard input",
        ) from error
    lines = (line.strip() for line in text.splitlines())
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise usage_error(
            f"{path} names no PV", field="--names-from", remedy="write one name a line"
        )
    return names
