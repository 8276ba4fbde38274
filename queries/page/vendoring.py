"""What others made of the page: files of npm packages, kept as they are published.

    python -m framewalk.queries.page.vendoring

It asks the registry for the packages and versions of `web/vendor/VENDOR.toml`, keeps their files,
and writes their hashes. To update a package, change its version there first. A module may import
others by their names, which a browser cannot find without an inline map: those become paths, and
nothing else is changed. It needs npm, and a checkout.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from framewalk.engine.errors import InputError

FOLDER: Final = Path(__file__).parent / "web" / "vendor"
LIST: Final = FOLDER / "VENDOR.toml"

# What a name that is imported becomes, from beside the folder of a package.
PATHS: Final = {
    "preact": "../preact/preact.mjs",
    "preact/hooks": "../preact/hooks.mjs",
    "@preact/signals-core": "../signals-core/signals-core.mjs",
}
_HEAD: Final = """\
# What others made of the page. `make vendor` writes this file and keeps the files; a test compares
# them. `published_sha256` is of the file in the npm package, `kept_sha256` of the one that is here,
# where names that are imported have become paths.
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of a package, by its path there and by its path here."""

    published: str
    kept: str
    published_sha256: str
    kept_sha256: str


@dataclass(frozen=True, slots=True)
class Package:
    """A package of npm."""

    name: str
    version: str
    licence: str
    files: tuple[Kept, ...]


def read_list(path: Path = LIST) -> tuple[Package, ...]:
    """Return the packages of a list."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return tuple(_package(one) for one in content["package"])


def with_paths(content: bytes) -> bytes:
    """Return a module that imports by paths."""
    for name, path in PATHS.items():
        content = content.replace(f'from"{name}"'.encode(), f'from"{path}"'.encode())
    return content


def with_names(content: bytes) -> bytes:
    """Return a module as it is published: what `with_paths` does, undone."""
    for name, path in PATHS.items():
        content = content.replace(f'from"{path}"'.encode(), f'from"{name}"'.encode())
    return content


def sha256(content: bytes) -> str:
    """Return the hash of a file."""
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    """Keep the files of all packages, and write the list again."""
    packages = [_fetched(one) for one in read_list()]
    LIST.write_text("\n".join([_HEAD, *map(_as_toml, packages)]), encoding="utf-8")


def _package(content: dict[str, Any]) -> Package:
    files = tuple(
        Kept(
            one["published"],
            one["kept"],
            one.get("published_sha256", ""),
            one.get("kept_sha256", ""),
        )
        for one in content["file"]
    )
    return Package(content["name"], content["version"], content["licence"], files)


def _fetched(package: Package) -> Package:
    with tempfile.TemporaryDirectory() as folder:
        wanted = f"{package.name}@{package.version}"
        command = ["npm", "pack", "--silent", "--pack-destination", folder, wanted]
        if subprocess.run(command, check=False).returncode:  # noqa: S603 - names of the list
            raise InputError(LIST, f"npm does not give {wanted}", "check its name and version")
        (archive,) = Path(folder).iterdir()
        with tarfile.open(archive) as content:
            files = tuple(_kept(content, one) for one in package.files)
    return Package(package.name, package.version, package.licence, files)


def _kept(archive: tarfile.TarFile, file: Kept) -> Kept:
    member = archive.extractfile(f"package/{file.published}")
    if member is None:
        raise InputError(LIST, f"{file.published} is no file", "look into the package")
    published = member.read()
    kept = with_paths(published)
    target = FOLDER / file.kept
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(kept)
    return Kept(file.published, file.kept, sha256(published), sha256(kept))


def _as_toml(package: Package) -> str:
    lines = ["[[package]]"]
    lines += [f'{name} = "{getattr(package, name)}"' for name in ("name", "version", "licence")]
    for file in package.files:
        lines.append("[[package.file]]")
        lines += [f'{name} = "{getattr(file, name)}"' for name in Kept.__slots__]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
