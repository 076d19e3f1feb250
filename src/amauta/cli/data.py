"""Make, clean and look at data."""

from typing import Any

from amauta.cli._door import Group
from amauta.data.clean import Curate
from amauta.data.show import Show, as_text
from amauta.data.smallworld.world import SmallWorld

app = Group("data")


@app.command("smallworld", SmallWorld)
def smallworld(settings: SmallWorld) -> dict[str, Any]:
    """Write the small world: a made-up community in two languages, with documents, dialogues, pairs and its entropy.

    Examples:
        amauta data smallworld --out world
        amauta data smallworld --out world --seed 7 --json
    """
    from amauta.data.smallworld.write import write

    return write(settings)


@app.command("curate", Curate)
def curate(settings: Curate) -> dict[str, Any]:
    """Clean running text, drop copies, hold some of it out, and cut long documents.

    Writes train.jsonl, heldout.jsonl and report.json, which counts what each rule did and what each file gave.

    Examples:
        amauta data curate --text 'corpus/*.txt' --out curated --split tail
        amauta data curate --text 'pages/**/*.jsonl.zst' --heldout 0.01 --minimum-characters 200 --out curated
    """
    from amauta.data.clean import curate

    report = curate(settings)
    return {name: value for name, value in report.items() if name not in ("files", "notes")}  # notes went to stderr


@app.command("show", Show, show=as_text)
def show(settings: Show) -> dict[str, Any]:
    """Show the first records of files in the shape in which they are read, and count the shapes.

    Examples:
        amauta data show chats.jsonl pairs.parquet
        amauta data show 'corpus/*.jsonl.gz' --count 1 --json
    """
    from amauta.data.show import show

    return show(settings)
