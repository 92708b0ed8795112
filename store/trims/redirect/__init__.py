"""Redirection: a program that does not know trims gets shared weights where it loads a model file that the store knows.

`trims exec` puts `boot` in front of the program's PYTHONPATH. Its sitecustomize installs `finder`, which patches a
framework right after that was imported, by one of the hooks here; and a hook lets `deciding.load` choose between the
program's own load and the shared model. Whatever fails in here, the program gets what it would have got without.
"""
