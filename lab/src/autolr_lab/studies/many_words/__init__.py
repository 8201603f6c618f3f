"""Networks from scratch on text of many words, of which a dozen steps tell no more than how frequent words are."""
