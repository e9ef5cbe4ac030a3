"""Classes by name, or by their path: how a mask, a decoder, an objective or a backbone of one's own takes part."""

from __future__ import annotations

import difflib
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from mae.components.arguments import arguments, takes_anything

T = TypeVar("T")


class Part(NamedTuple):
    """A part by its name, or by the path of its class, and its options."""

    name: str | None = None
    target: str | None = None
    options: Mapping[str, Any] = {}

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Part:
        """Return the part of a stored config: ``name`` or ``_target_``, and its options."""
        options = {key: value for key, value in config.items() if key not in ("name", "_target_")}
        return cls(config.get("name"), config.get("_target_"), options)


class Registry(Generic[T]):
    """Names of classes of one kind.

    A class is registered by one line, its path: its module is imported when it is first asked for.

    Args:
        group: The config group, for messages, such as ``masking``.
        base: What every class must derive from.
        classes: A path ``package.module.Class`` for each name.
    """

    def __init__(self, group: str, base: type[T], classes: Mapping[str, str]) -> None:
        self.group = group
        self.base = base
        self.classes = classes

    def __contains__(self, name: object) -> bool:
        """Whether a class has this name."""
        return name in self.classes

    def __iter__(self) -> Iterator[str]:
        """Return the names, in order of registration."""
        return iter(self.classes)

    def resolve(self, name: str | None = None, target: str | None = None) -> type[T]:
        """Return the class of a name, or of a path.

        Args:
            name: Under which it is registered; not read where there is a target.
            target: ``package.module.Class``; the current folder is searched too.

        Raises:
            ValueError: The name is unknown; or the path leads to no class that derives from ``base``.
        """
        if target is not None:
            return self._load(target, f"{self.group}._target_={target!r}")
        if name is None or name not in self.classes:
            known = ", ".join(self.classes)
            near = difflib.get_close_matches(str(name), self.classes, n=1)
            hint = f"did you mean {near[0]}? It is one of {known}" if near else f"choose one of {known}"
            raise ValueError(
                f"{self.group}.name={name!r} is unknown: {hint}, or {self.group}._target_=package.module.Class"
            )
        return self._load(self.classes[name], f"{self.group}.name={name!r}")

    def create(
        self, *given: Any, name: str | None = None, target: str | None = None, options: Mapping[str, Any] | None = None
    ) -> T:
        """Return an instance of the class of a name, or of a path.

        It gets ``config``, plain values of which ``Part.of`` says how to make it again.

        Args:
            *given: Positional arguments, which the program knows and no user gives.
            name: As for ``resolve``.
            target: As for ``resolve``.
            options: Keyword arguments, which the user gives.

        Raises:
            ValueError: There is no such class, or an option is not one of its.
        """
        kind, options = self.resolve(name, target), dict(options or {})
        self._check_options(kind, options, name if target is None else target)
        made = kind(*given, **options)
        made.config = {**({"name": name} if target is None else {"_target_": target}), **options}  # type: ignore[attr-defined]
        return made

    def _check_options(self, kind: type, options: Mapping[str, Any], title: str | None) -> None:
        """Raise a ValueError where an option is not one of a class, or has a value of another type."""
        known = {argument.name: argument for argument in arguments(kind)}
        for key, value in options.items():
            if key in known:
                known[key].check(value, f"{self.group}.{key}")
            elif not takes_anything(kind):
                near = difflib.get_close_matches(key, known, n=1)
                names = ", ".join(f"{self.group}.{option}" for option in known) or "none"
                hint = f"did you mean {self.group}.{near[0]}?" if near else f"its options are {names}"
                raise ValueError(f"{self.group}.{key}={value} is not an option of {self.group}={title}: {hint}")

    def _load(self, path: str, given: str) -> type[T]:
        """Import a class. Nothing is called: a checkpoint may name the path."""
        folder = str(Path.cwd())
        if folder not in sys.path:  # of a script, the script's own folder is there and not the current one
            sys.path.append(folder)
        try:
            found = pkgutil.resolve_name(path)
        except Exception as error:  # whatever the module raises as it is imported
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{given} cannot be imported: {reason}; give package.module.Class") from error
        base = f"{self.base.__module__}.{self.base.__qualname__}"
        if not isinstance(found, type) or not issubclass(found, self.base):
            raise ValueError(f"{given} is no class that derives from {base}")
        return found
