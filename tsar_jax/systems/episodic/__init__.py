"""ANML, OML and TSAR: meta-learning through SGD on a stream of one class after another."""
