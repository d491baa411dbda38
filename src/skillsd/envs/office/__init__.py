"""An office whose customs only experience can tell: tools called in text, another set of conventions in every world."""
