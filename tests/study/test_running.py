"""Both stages of a study, on a tiny model."""

import json

from radapter.reporting import study_tables
from radapter.study import table


def test_it(small):
    assert small.run() == []
    print(small.done)
    summary = table.summarise(small.folder)
    print(json.dumps(summary, indent=1)[:3000])
    print(study_tables.to_markdown(summary))
    print(small.folder.study.read_text())
