"""Four families, one yardstick: an n-gram model, an encoder, an encoder-decoder and a decoder on one corpus at equal
FLOPs, and three questions of the literature asked again at small scale."""
