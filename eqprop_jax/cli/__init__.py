"""The commands that come with the library: train, sweep, evaluate, diagnose, prepare.

Each is a module, the command `eqprop-train` and so on; --help prints its docstring.
"""
