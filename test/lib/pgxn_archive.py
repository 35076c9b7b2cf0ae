"""pgxn_archive.py ARCHIVE.zip: what is wrong with an archive for PGXN.

It says nothing about an archive whose META.json conforms to the specification (see
pgxn_meta.schema.json), which has what META.json names, and nothing that is for this
repository only.
"""

import json
import os
import sys
import zipfile

import jsonschema

WANTED = ["Makefile", "LICENSE", "README.md", "CHANGELOG.md"]
UNWANTED = ["debian/", ".git", ".ci/", ".editorconfig"]


def complaints(path):
    """All that is wrong, one by one."""
    archive = zipfile.ZipFile(path)
    folder = os.path.basename(path)[: -len(".zip")] + "/"
    names = [name[len(folder):] for name in archive.namelist() if name.startswith(folder)]
    if len(names) != len(archive.namelist()):
        yield f"not everything is in {folder}"
    if "META.json" not in names:
        yield f"{folder}META.json is missing"
        return

    with open(os.path.join(os.path.dirname(__file__), "pgxn_meta.schema.json"), encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft7Validator.check_schema(schema)
    meta = json.loads(archive.read(folder + "META.json").decode("utf-8"))
    for error in jsonschema.Draft7Validator(schema).iter_errors(meta):
        yield "META.json: " + "/".join(map(str, error.path)) + ": " + error.message

    if folder != f"{meta.get('name')}-{meta.get('version')}/":
        yield f"{folder} is not what META.json names it"
    for extension, provided in meta.get("provides", {}).items():
        for wanted in [f"{extension}.control", *(provided.get(key) for key in ("file", "docfile"))]:
            if wanted and wanted not in names:
                yield f"{wanted} is missing, of the extension {extension}"
    for wanted in WANTED:
        if wanted not in names:
            yield f"{wanted} is missing"
    for name in names:
        if name.startswith(tuple(UNWANTED)):
            yield f"{name} is not for an archive"


found = list(complaints(sys.argv[1]))
print(*found, sep="\n", end="\n" if found else "")
sys.exit(1 if found else 0)
