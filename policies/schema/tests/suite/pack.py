"""Packs the required cases of JSON-Schema-Test-Suite: one line of JSON for each group, one file a draft.

python3 pack.py SUITE, the folder with `tests` and `remotes`
"""

import json
import pathlib
import sys

suite = pathlib.Path(sys.argv[1])
here = pathlib.Path(__file__).parent


def write(name, lines):
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (here / name).write_text(text)


drafts = ["draft4", "draft6", "draft7", "draft2019-09", "draft2020-12"]
for draft in drafts:
    files = sorted((suite / "tests" / draft).glob("*.json"))
    write(f"{draft}.jsonl", [{"file": file.name, **group} for file in files for group in json.loads(file.read_text())])

remotes = sorted((suite / "remotes").rglob("*.json"))
named = [(file.relative_to(suite / "remotes"), file) for file in remotes]
used = [(name, file) for name, file in named if name.parts[0] not in ("draft3", "draft-next")]
write("remotes.jsonl", [{"path": str(name), "document": json.loads(file.read_text())} for name, file in used])
