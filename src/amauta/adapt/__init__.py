"""Small changes to a frozen model: what is put around its layers, before its tokens, or chosen among its weights."""
