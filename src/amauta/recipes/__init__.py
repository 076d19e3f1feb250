"""Recipes: a recipe is a TOML list of the commands that a user would type; it is run, resumed and reported.

``recipe.py`` reads and checks one, ``run.py`` runs it, ``child.py`` runs one stage as a process, ``ledger.py`` keeps
what was done in ``stages.json``, ``goals.py`` judges what was learned, ``report.py`` writes ``report.html``. The
recipes of the package are the TOML files beside this one.
"""
