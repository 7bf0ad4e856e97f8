"""Prints docs/images.md: what the images contain, and how large it is. ``make images-table`` calls it."""

from __future__ import annotations

import json
import sys

from tests.helpers.container_engine import Engine
from tests.helpers.image_limits import MOST_MB

INSIDE = """
import importlib.metadata as metadata, importlib.util, json, os, pathlib
def size(path):
    return os.lstat(path).st_size if os.path.lexists(path) else 0
def whole(folder):
    return sum(size(path) for path in pathlib.Path(folder).rglob("*") if not path.is_dir())
found = []
for d in metadata.distributions():
    files = [d.locate_file(file) for file in d.files or []]
    compiled = [importlib.util.cache_from_source(str(file)) for file in files if file.suffix == ".py"]
    text = d.metadata["License-Expression"] or d.metadata["License"] or ""
    named = [c.split(" :: ")[-1] for c in d.metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    if "\\n" in text or (len(text) > 40 and named):
        text = named[0] if named else ""
    found.append([d.metadata["Name"], d.version, text, sum(map(size, [*files, *compiled]))])
print(json.dumps({"packages": found, "models": whole("/app/models")}))
"""

HEAD = """\
# Images

`make images` builds one container image for each operator, from the Dockerfile in the operator's folder. An image holds
the packages that its operator imports ([dependencies](dependencies.md)): compiled, with their licences, without their
own tests. It holds no compiler, no address of a package index and no cache. `make images-table` writes this page.
Sizes are in MB of 10^6 bytes, as the container engine reports them.

The base image for these figures is Debian 12 with its own Python 3.11, built by `tests/containers/setup.sh`. The image
of the same name on Docker Hub has another size. To use another base image, set
`BUILD_OPTIONS="--build-arg PYTHON_IMAGE=..."`; it must have `bash` and Python 3.11 to 3.13 with `venv` and `pip`.
"""


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def mb(count: float) -> str:
    return f"{count / 1e6:.1f}" if count < 9.95e6 else f"{count / 1e6:.0f}"


def short(licence: str) -> str:
    first, _, more = licence.partition(" AND ")
    return f"{first} and others" if more and len(licence) > 40 else licence


def main() -> None:
    engine = Engine.find()
    if engine is None:
        sys.exit("neither podman nor docker answers")
    sizes, contents, base = {}, {}, 0
    for operator in MOST_MB:
        image = f"nuclei/{operator}:latest"
        details = json.loads(engine.call("image", "inspect", image).out)[0]
        sizes[operator] = details["Size"]
        name = details["Config"]["Labels"]["org.opencontainers.image.base.name"]
        base = json.loads(engine.call("image", "inspect", name).out)[0]["Size"]
        done = engine.run(image, "--network", "none", command=["python", "-"], stdin=INSIDE)
        contents[operator] = json.loads(done.out)

    packages: dict[str, tuple[str, str]] = {}
    megabytes: dict[str, dict[str, int]] = {}
    for operator, content in contents.items():
        for name, version, licence, size in content["packages"]:
            packages[name] = (version, short(licence))
            megabytes.setdefault(name, {})[operator] = size

    print(HEAD)
    print(row("MB", *MOST_MB))
    print(row("---", *["--:"] * len(MOST_MB)))
    print(row("size", *(mb(sizes[operator]) for operator in MOST_MB)))
    print(row("of which the base image", *[mb(base)] * len(MOST_MB)))
    print(row("of which packages", *(mb(sum(p[3] for p in contents[operator]["packages"])) for operator in MOST_MB)))
    print(
        row(
            "of which models",
            *(mb(contents[operator]["models"]) if contents[operator]["models"] else "" for operator in MOST_MB),
        )
    )
    print(row("limit (a test checks it)", *MOST_MB.values()))
    print("\n## Packages\n")
    print(row("package", "version", "licence", *MOST_MB))
    print(row("---", "---", "---", *["--:"] * len(MOST_MB)))
    for name in sorted(packages, key=lambda name: (-max(megabytes[name].values()), name)):
        print(row(name, *packages[name], *(mb(megabytes[name][o]) if o in megabytes[name] else "" for o in MOST_MB)))


if __name__ == "__main__":
    main()
